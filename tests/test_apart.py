"""Decoding in processes: the same vectors and errors, and a program that goes on whatever becomes of them."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import sounds

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioError, AudioText, InputError
from alm2vec_integrations.audio import apart, decoding
from alm2vec_integrations.audio.access import AccessPolicy

POLICY = AccessPolicy()


@pytest.fixture(autouse=True)
def _threads_of_this_test(monkeypatch):
    """Processes of earlier tests are not this one's; nor is the finding that there can be none."""
    monkeypatch.setattr(apart, "_state", apart._State())
    monkeypatch.setattr(apart, "_failures", 0)


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

        class Text(str):
            """Also of this module."""

        own = AudioClip(Own(), label=Text("a"))
        assert apart.write([(own, str(tmp_path / "out.wav"))], POLICY) == [None]
        policy = AccessPolicy([Text(clips[0].parent)])
        assert apart.seconds_of([own, AudioClip(Text(clips[0]))], policy) == [0.5, 0.5]
        assert len(processes) == 1

    def test_relative_paths(self, clips, tmp_path, processes, monkeypatch):
        """Go from where the program is now."""
        (tmp_path / "elsewhere").mkdir()
        sounds.write(tmp_path / "elsewhere" / "0.wav", sounds.noise(1.0))
        for folder, length in ((clips[0].parent, 0.5), (tmp_path / "elsewhere", 1.0)):
            monkeypatch.chdir(folder)
            assert apart.seconds_of([AudioClip("0.wav")], POLICY) == [length]
            reference = AudioClip.from_reference(AudioClip("0.wav").reference())
            assert apart.seconds_of([reference], AccessPolicy(["."])) == [length]

    def test_a_folder_where_nobody_can_go(self, clips, processes, monkeypatch):
        """Or that is gone: what is relative to it is read here."""
        folder = clips[0].parent / "gone"
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert apart.seconds_of([AudioClip("../0.wav")], POLICY) == [0.5]
        monkeypatch.setattr(Path, "cwd", lambda: Path("/nowhere"))
        for path in ("../0.wav", clips[0]):
            assert apart.seconds_of([AudioClip(path)], POLICY) == [0.5]
        assert len(processes) == 1

    def test_a_search_path_with_more_than_text(self, clips, processes, monkeypatch):
        """Python takes no notice of it; nor do processes."""
        monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
        assert apart.seconds_of([AudioClip(clips[0])], POLICY) == [0.5]
        assert processes

    def test_a_header_for_which_there_is_no_memory(self, encoder, clips, processes, monkeypatch):
        """Is its item's failure."""
        monkeypatch.setattr(apart, "seconds_of", lambda clips, policy: [MemoryError(), *[0.5] * (len(clips) - 1)])
        result = encoder.encode_partial([AudioClip(path) for path in clips[:3]], task="document")
        assert [failure.index for failure in result.failures] == [0]
        assert "not enough memory to read its header" in result.failures[0].reason


class TestWhen:
    @pytest.mark.parametrize(
        ("asked", "device", "files", "expected"),
        [
            ("", "cuda:0", 128, True), ("", "cuda", 127, False), ("", "cpu", 10**6, False), ("", "mps", 128, True),
            ("threads", "cuda", 128, False), ("processes", "cpu", 1, True), ("processes", "cuda", 0, False),
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

    @pytest.fixture
    def crashes(self, tmp_path, monkeypatch):
        """Has the processes end at files whose name begins with "crash", as a decoder crashes."""

        def by(how):
            (tmp_path / "site").mkdir()
            (tmp_path / "site" / "sitecustomize.py").write_text(
                textwrap.dedent(f"""
                import os, signal
                from alm2vec_integrations.audio.access import AccessPolicy
                real = AccessPolicy.open
                def open(self, clip, *, check_digest):
                    if os.path.basename(clip.path).startswith("crash"):
                        {how}
                    return real(self, clip, check_digest=check_digest)
                AccessPolicy.open = open
                """)
            )
            monkeypatch.syspath_prepend(tmp_path / "site")

        return by

    @pytest.mark.parametrize("verb", ["write", "measure"])
    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
            ("os.kill(os.getpid(), signal.SIGKILL)", None),
            ("os._exit(3)", "exit status 3"),
        ],
    )
    def test_of_a_process_by_a_file(self, files, crashes, tmp_path, processes, caplog, how, said, verb):
        """Costs that file alone: a decoder's crash is its fault; a kill, as for want of memory, may be nobody's."""
        crashes(how)
        written = [(clip, str(tmp_path / f"{i}.wav")) for i, clip in enumerate(files)]
        if verb == "write":
            answers = apart.write(written, POLICY)
            assert [Path(path).exists() for _, path in written] == [True, True, False, True]
        else:
            answers = apart.seconds_of(files, POLICY)
        good = None if verb == "write" else 0.5
        assert [answers[0], answers[1] == good or verb == "measure"] == [good, True]
        assert isinstance(answers[2], MemoryError if said is None else AudioError)
        if said:
            assert f"crash.wav: could not be read: the decoder crashed on it ({said})" in str(answers[2])
        assert not isinstance(answers[3], Exception)
        assert caplog.text.count("a process for decoding ended") == 1

    def test_of_a_process_by_a_file_of_a_job(self, encoder, files, crashes, processes):
        """Its item fails, the others do not, and nor does the program."""
        crashes("os.kill(os.getpid(), signal.SIGSEGV)")
        result = encoder.encode_partial(files, task="document")
        assert [(failure.index, "crashed" in failure.reason) for failure in result.failures] == [(2, True)]

    def test_of_a_question(self, clips, processes, monkeypatch):
        """By an interrupt: the answer that comes later is not taken for that to another."""
        assert apart.seconds_of([AudioClip(clips[0])], POLICY) == [0.5]
        real = Connection.recv

        def interrupted(connection):
            raise KeyboardInterrupt

        monkeypatch.setattr(Connection, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            apart.seconds_of([AudioClip(clips[0])], POLICY)
        monkeypatch.setattr(Connection, "recv", real)
        assert apart.seconds_of([AudioClip(clips[1])], POLICY) == [pytest.approx(0.63)]

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

    @pytest.mark.parametrize("executable", ["/nowhere/python", shutil.which("true"), shutil.which("echo"), None])
    def test_where_none_can_be_started(self, encoder, clips, processes, monkeypatch, caplog, executable):
        """As where `sys.executable` is no Python: this process decodes, and says so once."""
        monkeypatch.setattr(sys, "executable", executable)
        expected = encoder.encode([AudioClip(path) for path in clips], task="query")
        again = encoder.encode([AudioClip(path) for path in clips], task="query")
        np.testing.assert_array_equal(expected, again)
        encoder.encode([AudioClip(path) for path in clips], task="query")
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

    def test_of_a_forked_child(self, clips):
        """Does not wait for processes that are its parent's, nor keep them."""
        apart.seconds_of([AudioClip(clips[0])], POLICY)
        pid = apart._state.process._process.pid
        child = os.fork()
        if child == 0:
            try:
                gone = apart._state.process is None and apart.seconds_of([AudioClip(clips[1])], POLICY)
            finally:
                os._exit(0 if gone == [0.63] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert apart.seconds_of([AudioClip(clips[0])], POLICY) == [0.5]
        assert apart._state.process._process.pid == pid

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
