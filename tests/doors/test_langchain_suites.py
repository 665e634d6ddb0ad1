"""LangChain's official suites, in a process of their own, without network: how many tests passed, and that all did."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("langchain_tests", reason="LangChain's suites are not installed")

TESTS = Path(__file__).resolve().parents[1]
# Of langchain-tests 1.1.9. None is skipped, overridden or expected to fail: an xfail would have to be written here.
PASSED = {"TestEmbeddingsUnit": 3, "TestEmbeddingsIntegration": 5, "TestRetriever": 5, "TestVectorStore": 25}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of each test: its class, its name, and what came of it."""
    path = tmp_path_factory.mktemp("suites") / "report.xml"
    suites = TESTS / "support" / "langchain_suites.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(suites), "-q", f"--junitxml={path}", "-p", "no:cacheprovider",
         "--disable-socket", "--allow-unix-socket"],
        capture_output=True, text=True, cwd=TESTS.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return [
        (case.get("classname").rpartition(".")[2], case.get("name"), next((child.tag for child in case), "passed"))
        for case in ElementTree.parse(path).iter("testcase")
    ]


def test_all_passed(report):
    assert [case for case in report if case[2] != "passed"] == []
    assert Counter(suite for suite, *_ in report) == PASSED


def test_none_is_missing(report):
    """Every test that the suites have was run."""
    from langchain_tests import integration_tests, unit_tests

    for suite, base in {
        "TestEmbeddingsUnit": unit_tests.EmbeddingsUnitTests,
        "TestEmbeddingsIntegration": integration_tests.EmbeddingsIntegrationTests,
        "TestRetriever": integration_tests.RetrieversIntegrationTests,
        "TestVectorStore": integration_tests.VectorStoreIntegrationTests,
    }.items():
        ran = {name for of, name, _ in report if of == suite}
        assert ran == {name for name in dir(base) if name.startswith("test_")}
