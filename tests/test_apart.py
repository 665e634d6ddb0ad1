"""Decoding in processes: the same vectors and errors, and a program that goes on whatever becomes of them."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import sounds
from crashing import CrashingPolicy

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioError, AudioText, InputError
from alm2vec_integrations.audio import apart, decoding
from alm2vec_integrations.audio.access import AccessPolicy

POLICY = AccessPolicy()


@pytest.fixture(autouse=True)
def _threads_of_this_test(monkeypatch):
    """Processes of earlier tests are not this one's; nor is the finding that there can be none."""
    apart._forget_after_fork()
    monkeypatch.setattr(apart._State, "refused", False)
    yield
    apart._forget_after_fork()


@pytest.fixture
def processes(monkeypatch):
    """Decoding in processes, and those that were started."""
    monkeypatch.setenv(apart.VARIABLE, "processes")
    started, real = [], subprocess.Popen

    def start(*arguments, **keywords):
        started.append(real(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.fixture
def items(clips, tmp_path):
    """Of every kind, good and bad."""
    sounds.write(clips[8], np.zeros(0, np.float32))  # no samples
    clips[9].write_bytes(clips[9].read_bytes()[:2000])  # cut short
    return [
        "a text",
        *map(AudioClip, clips),
        *(AudioText("who?", AudioClip(path, start_seconds=0.1, end_seconds=0.4)) for path in clips[:4]),
        AudioClip(tmp_path / "missing.wav"),
        AudioClip(clips[0].read_bytes()),
        AudioClip(np.zeros(8000, np.float32), sampling_rate=16_000),
        AudioClip.from_reference(AudioClip(clips[1]).reference()),
        AudioClip(clips[2], end_seconds=99),
        7,
    ]


def is_gone(pid):
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


class TestSame:
    def test_vectors_and_failures(self, encoder, items, processes, monkeypatch):
        """As threads give them, item by item; nothing of a file is decoded here."""
        monkeypatch.setenv(apart.VARIABLE, "threads")
        expected = encoder.encode_partial(items, task="query")
        assert not processes
        monkeypatch.setenv(apart.VARIABLE, "processes")
        real = decoding.decode
        here = []
        monkeypatch.setattr(decoding, "decode", lambda clip, policy: here.append(clip) or real(clip, policy))
        found = encoder.encode_partial(items, task="query")
        assert processes
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        assert found.failures == expected.failures
        assert len(found.failures) >= 5
        assert {type(clip.source) for clip in here} == {bytes, np.ndarray}

    def test_a_stream(self, encoder, clips, processes):
        """Prepared in the background, window after window."""
        expected = encoder.encode([AudioClip(path) for path in clips], task="document")
        found = list(encoder.encode_stream((AudioClip(path) for path in clips * 60), task="document"))
        assert processes
        np.testing.assert_allclose(np.stack([row for _, row in found]), np.tile(expected, (60, 1)), atol=1e-5)

    def test_an_error_names_its_item(self, encoder, clips, tmp_path, processes):
        """Its place, its file and what was wrong."""
        (tmp_path / "broken.wav").write_bytes(b"no recording")
        with pytest.raises(AudioError, match=r"item 1, .*broken\.wav") as caught:
            encoder.encode([AudioClip(clips[0]), AudioClip(tmp_path / "broken.wav")], task="query")
        assert (caught.value.index, caught.value.source) == (1, str(tmp_path / "broken.wav"))

    def test_a_path_object_of_ones_own(self, clips, tmp_path, processes):
        """Cannot be sent; its path can."""

        class Own:
            def __fspath__(self):
                return str(clips[0])

        assert apart.write([(AudioClip(Own()), str(tmp_path / "out.wav"))], POLICY) == [None]
        assert apart.seconds_of([AudioClip(Own())], POLICY) == [0.5]


class TestWhen:
    @pytest.mark.parametrize(
        ("asked", "device", "files", "expected"),
        [
            ("", "cuda:0", 64, True), ("", "cuda", 63, False), ("", "cpu", 10**6, False), ("", "mps", 64, True),
            ("threads", "cuda", 64, False), ("processes", "cpu", 1, True), ("processes", "cuda", 0, False),
        ],
    )  # fmt: skip
    def test_it_is_wanted(self, monkeypatch, asked, device, files, expected):
        """Beside a GPU, for many files, or as the environment says."""
        monkeypatch.setenv(apart.VARIABLE, asked)
        assert apart.wanted(device, files) is expected

    def test_another_word(self, encoder, monkeypatch):
        """In the environment is an error."""
        monkeypatch.setenv(apart.VARIABLE, "forks")
        with pytest.raises(InputError, match=r"ALM2VEC_DECODING must be .*'forks'"):
            encoder.encode_query("a")


class TestEndings:
    @pytest.fixture
    def files(self, clips):
        """The third crashes what opens it."""
        bad = clips[0].with_name("crash.wav")
        shutil.copyfile(clips[0], bad)
        return [AudioClip(path) for path in (clips[0], clips[1], bad, clips[3])]

    @pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGKILL])
    def test_of_a_process_by_a_file(self, files, tmp_path, processes, caplog, sent):
        """Costs that file alone: a decoder's crash is its fault; a kill, as for want of memory, may be nobody's."""
        written = [(clip, str(tmp_path / f"{i}.wav")) for i, clip in enumerate(files)]
        errors = apart.write(written, CrashingPolicy(sent))
        assert [error is None for error in errors] == [True, True, False, True]
        if sent == signal.SIGKILL:
            assert type(errors[2]) is MemoryError
        else:
            assert type(errors[2]) is AudioError
            assert "crash.wav: could not be read: the decoder crashed on it (SIGSEGV)" in str(errors[2])
        assert caplog.text.count("a process for decoding ended") == 1
        assert [Path(path).exists() for _, path in written] == [True, True, False, True]

    def test_of_a_process_between_files(self, clips, tmp_path, processes, caplog):
        """Is made up for by another one."""
        out = str(tmp_path / "out.wav")
        assert apart.write([(AudioClip(clips[0]), out)], POLICY) == [None]
        processes[-1].kill()
        processes[-1].wait()
        assert apart.write([(AudioClip(clips[0]), out)], POLICY) == [None]
        assert len(processes) == 2
        processes[-1].kill()
        processes[-1].wait()
        assert apart.seconds_of([AudioClip(clips[0])], POLICY) == [0.5]
        assert caplog.text.count("a process for decoding ended (SIGKILL)") == 2

    @pytest.mark.parametrize("executable", ["/nowhere/python", shutil.which("true")])
    def test_where_none_can_be_started(self, encoder, clips, processes, monkeypatch, caplog, executable):
        """As where `sys.executable` is no Python: this process decodes, and says so once."""
        monkeypatch.setattr(sys, "executable", executable)
        expected = encoder.encode([AudioClip(path) for path in clips], task="query")
        again = encoder.encode([AudioClip(path) for path in clips], task="query")
        np.testing.assert_array_equal(expected, again)
        assert "decoding in threads from now on" in caplog.text
        before = len(processes)
        encoder.encode(AudioClip(clips[0]), task="query")
        assert len(processes) == before

    def test_of_the_encoder(self, fake, clips, processes):
        """Ends its processes."""
        with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as encoder:
            encoder.encode([AudioClip(path) for path in clips], task="query")
        del encoder
        gc.collect()
        assert processes
        assert all(is_gone(process.pid) for process in processes)

    def test_of_the_program(self, clips, tmp_path):
        """However it ends; and its main module is not run again."""
        script = tmp_path / "program.py"
        script.write_text(
            textwrap.dedent(f"""
            import os, signal, sys
            from alm2vec_integrations import AudioClip
            from alm2vec_integrations.audio import apart
            from alm2vec_integrations.audio.access import AccessPolicy
            print(apart.seconds_of([AudioClip({str(clips[0])!r})], AccessPolicy()), apart._state.process._process.pid)
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
            """)
        )
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            [sys.executable, script],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        (line,) = done.stdout.splitlines()
        length, pid = line.rsplit(" ", 1)
        assert length == "[0.5]"
        assert is_gone(int(pid))
