"""A short run of tests/fuzz_audio.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz_audio.py"


def test_damaged_recordings_give_samples_or_errors_of_ours():
    """A hundred of every format: no crash, no hang, no other exception."""
    command = [sys.executable, "-P", "-W", "ignore", FUZZ, "--cases", "100", "--seconds", "120"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    assert result["found"] == {}
    assert done.returncode == 0
    assert result["cases"] >= 1900
    assert all(count["refused"] for count in result["by_format"].values())


WORKER = """
import os, sys
sys.path.insert(0, {folder!r})
import fuzz_audio
from alm2vec_integrations.audio import decoding

def broken(clip, policy):
    if {how!r} == "raises":
        raise KeyError("not ours")
    os._exit(7)

decoding.measure = broken
fuzz_audio.work()
"""


@pytest.mark.parametrize(("how", "expected"), [("raises", "raises KeyError"), ("dies", "crashes with status 7")])
def test_the_fuzzer_notices(tmp_path, monkeypatch, how, expected):
    """What it looks for: another exception, a process that dies."""
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    import fuzz_audio

    (tmp_path / "worker.py").write_text(WORKER.format(folder=str(FUZZ.parent), how=how))
    monkeypatch.setattr(fuzz_audio.Watched, "command", (sys.executable, str(tmp_path / "worker.py")))
    watched = fuzz_audio.Watched()
    assert watched.run("wav 16", 0).startswith(expected)
    watched.stop()
