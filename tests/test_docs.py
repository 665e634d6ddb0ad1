"""Every Python block of the README and the docs is run as written; shell commands are those that CI runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sounds

from alm2vec_integrations.tiny import FOLDER

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Stands for a GPU where there is none.
ON_CPU = {".cuda()": "", 'device="cuda"': 'device="cpu"'}


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A hub cache in which the bundled checkpoint stands for the published ones."""
    cache = tmp_path_factory.mktemp("hub")
    for name in ("ALM2Vec-FT", "ALM2Vec-PT"):
        repository = cache / f"models--cara-ai--{name}"
        shutil.copytree(FOLDER, repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    return cache


@pytest.fixture
def calls(tmp_path):
    """The files that the snippets speak of."""
    for seed, name in enumerate(["monday", "tuesday"]):
        for suffix in ("wav", "flac"):
            sounds.write(tmp_path / "calls" / f"{name}.{suffix}", sounds.noise(21.0, seed=seed))
    return tmp_path


def run(code, hub, cwd):
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_of(page):
    code = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    for cuda, cpu in ON_CPU.items():
        code = code.replace(cuda, cpu)
    return code


@pytest.mark.parametrize("page", SNIPPETS, ids=lambda page: page.name)
def test_snippets_run(page, hub, calls):
    """Top to bottom, in one namespace, in a process of their own."""
    run(code_of(page), hub, calls)


def test_the_cards_call_and_ours_agree(hub, calls):
    """The page claims the same vectors on either side."""
    page = ROOT / "docs" / "from-the-card.md"
    report = (
        "\nimport json; print(json.dumps({name: globals()[name].tolist() for name in "
        "('card_scores', 'our_scores', 'card_aspect', 'our_aspect')}))"
    )
    values = json.loads(run(code_of(page) + report, hub, calls).splitlines()[-1])
    for kind in ("scores", "aspect"):
        for card, ours in zip(values[f"card_{kind}"], values[f"our_{kind}"], strict=True):
            assert ours == pytest.approx(card, abs=1e-5)
    assert abs(values["our_scores"][0][0] - values["our_scores"][0][1]) > 1e-3


def test_the_quickstart(hub, tmp_path):
    """Makes its own sounds and prints three searches; a folder of the user's works too."""
    script = ROOT / "examples" / "quickstart.py"
    for arguments in ([], [str(sounds.write(tmp_path / "x.flac", sounds.tone(1.0)).parent)]):
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        titles = [line for line in done.stdout.splitlines() if line.startswith("By ")]
        assert len(titles) == 3
        hits = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
        assert len(hits) == (9 if not arguments else 3)
        assert all(-1.0001 <= float(score) <= 1.0001 for score, _ in hits)


def test_links_lead_somewhere():
    """Relative links of the README and the docs exist."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
