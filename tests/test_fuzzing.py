"""A short run of tests/fuzz_audio.py."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import recordings

FUZZ = Path(__file__).parent / "fuzz_audio.py"


def test_damaged_recordings_give_samples_or_errors_of_ours():
    """A hundred of every format: no crash, no hang, no other exception."""
    command = [sys.executable, "-P", "-W", "ignore", FUZZ, "--cases", "100", "--seconds", "900"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    assert result["found"] == {}
    assert done.returncode == 0
    formats = {*recordings.OF_LIBSNDFILE}
    if importlib.util.find_spec("av"):
        formats |= {*recordings.OF_FFMPEG, *recordings.ROUNDABOUT}
    assert {name: sum(count.values()) for name, count in result["by_format"].items()} == dict.fromkeys(formats, 100)
    assert all(count["refused"] for count in result["by_format"].values())


WORKER = """
import os, sys, time
sys.path.insert(0, {folder!r})
import fuzz_audio
from alm2vec_integrations.audio import decoding

cases = 0

def broken(clip, policy):
    global cases
    cases += 1
    if cases == 1 and {how!r} == "sleeps":
        return sound(clip, policy)
    if {how!r} == "raises":
        raise KeyError("not ours")
    if {how!r} == "sleeps":
        time.sleep(3600)
    os._exit(7)

sound, decoding.measure = decoding.measure, broken
fuzz_audio.work()
"""


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """A function that begins to watch a worker whose decoder is broken in some way; it is ended after the test."""
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    import fuzz_audio

    watching = []

    def begin(how):
        (tmp_path / "worker.py").write_text(WORKER.format(folder=str(FUZZ.parent), how=how))
        monkeypatch.setattr(fuzz_audio.Watched, "command", (sys.executable, str(tmp_path / "worker.py")))
        watching.append(fuzz_audio.Watched())
        return watching[-1]

    yield begin
    for watched in watching:
        watched.stop()


@pytest.mark.parametrize(("how", "expected"), [("raises", "raises KeyError"), ("dies", "crashes with status 7")])
def test_the_fuzzer_notices(watch, how, expected):
    """What it looks for: another exception, a process that dies."""
    assert watch(how).run("wav 16", 0).startswith(expected)


def test_the_fuzzer_notices_a_hang(watch, monkeypatch):
    """Of a process that answered before and no longer does; the next case is run by another."""
    import fuzz_audio

    watched = watch("sleeps")
    first = watched.run("wav 16", 0)
    assert first in ("decoded", "refused")
    hanging = watched.process
    with monkeypatch.context() as changed:
        changed.setattr(fuzz_audio, "MOST_SECONDS_A_CASE", 1.0)
        assert watched.run("wav 16", 1) == "hangs for more than 1 s"
    assert hanging.poll() is not None
    assert watched.run("wav 16", 0) == first


def test_every_form_meets_every_part(monkeypatch):
    """In the cases that follow each other."""
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    import fuzz_audio

    forms, parts = fuzz_audio.FORMS, fuzz_audio.PARTS
    met = {(number % len(forms), number // len(forms) % len(parts)) for number in range(100)}
    assert len(met) == len(forms) * len(parts)
