"""When a model is loaded, shared and released, and what is left behind."""

import asyncio
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_checkpoints
import numpy as np
import pytest

from alm2vec_integrations import ALM2VecEncoder, AudioClip, CheckpointError
from alm2vec_integrations.audio import workspace as workspace_module
from alm2vec_integrations.audio.workspace import workspace


def make(folder, **keywords):
    return ALM2VecEncoder(folder, trust_remote_code=True, **{"device": "cpu", **keywords})


def model_of(encoder):
    return weakref.ref(encoder._acquire().loaded().model)


class TestSharing:
    def test_equal_configurations_load_once(self, fake):
        """Limits and instructions do not make another model."""
        encoders = [make(fake), make(fake, max_batch_items=1, query_instruction="x"), make(str(fake), dtype="float32")]
        for encoder in encoders:
            encoder.encode("x", task="query")
        assert len(fake_checkpoints.loads) == 1

    def test_threads_that_start_together_load_once(self, fake):
        """The first to come loads, the others wait for it."""
        barrier = threading.Barrier(8)

        def work(_):
            barrier.wait()
            return make(fake).encode("x", task="query")

        with ThreadPoolExecutor(8) as threads:
            encoder = make(fake)
            encoder._acquire()  # held, so that the model outlives the threads' own encoders
            list(threads.map(work, range(8)))
        assert len(fake_checkpoints.loads) == 1

    def test_other_configurations_load_their_own(self, fake, tmp_path):
        """Another folder, or other keyword arguments for transformers, are another model."""
        encoders = [
            make(fake),
            make(fake_checkpoints.write(tmp_path / "other")),
            make(fake, model_kwargs={"low_cpu_mem_usage": True}),
        ]
        for encoder in encoders:
            encoder.encode("x", task="query")
        assert len(fake_checkpoints.loads) == 3

    def test_a_failed_load_is_tried_again(self, fake):
        """The error is not remembered in place of the model."""
        (fake / "config.json").rename(fake / "away")
        encoder = make(fake)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            encoder.encode("x", task="query")
        (fake / "away").rename(fake / "config.json")
        assert encoder.encode("x", task="query").shape == (fake_checkpoints.DIM,)


class TestRelease:
    def test_the_model_dies_with_the_last_close(self, fake):
        """Closing one of two encoders keeps it, closing both frees it."""
        one, two = make(fake), make(fake)
        model = model_of(one)
        assert model_of(two)() is model()
        one.close()
        assert model() is not None
        two.close()
        assert model() is None

    def test_the_model_dies_with_the_last_encoder(self, fake):
        """Without `close` it goes when the encoders are collected."""
        one = make(fake)
        model = model_of(one)
        del one
        gc.collect()
        assert model() is None

    async def test_the_model_dies_after_async_use(self, fake):
        """The threads behind `aencode` hold nothing back, and end."""
        before = set(threading.enumerate())
        encoder = make(fake)
        await encoder.aencode(["a", "b"], task="query")
        model = model_of(encoder)
        own = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("alm2vec")}
        assert own
        encoder.close()
        for thread in own:
            await asyncio.to_thread(thread.join, 30)
        assert model() is None
        assert not any(thread.is_alive() for thread in own)

    def test_a_closed_encoder_loads_again_when_used(self, fake):
        """`close` frees memory, it does not break the encoder; closing twice is fine."""
        encoder = make(fake)
        before = encoder.encode("x", task="query")
        encoder.close()
        encoder.close()
        np.testing.assert_array_equal(encoder.encode("x", task="query"), before)
        assert len(fake_checkpoints.loads) == 2

    def test_closing_during_a_call_lets_it_finish(self, fake):
        """The call under way keeps the model until it returns."""
        encoder = make(fake)
        encoder.encode("x", task="query")
        fake_checkpoints.on_encode = lambda model, keywords: encoder.close()
        assert encoder.encode("y", task="query").shape == (fake_checkpoints.DIM,)

    def test_the_context_manager_closes(self, fake):
        """Leaving the block frees the model."""
        with make(fake) as encoder:
            model = model_of(encoder)
        assert model() is None


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
    def test_copies_share_the_model(self, fake, duplicate):
        """No second load, and the model lives until the copy is closed too."""
        encoder = make(fake, query_instruction="kept")
        vector = encoder.encode("x", task="query")
        twin = duplicate(encoder)
        np.testing.assert_array_equal(twin.encode("x", task="query"), vector)
        assert len(fake_checkpoints.loads) == 1
        model = model_of(encoder)
        encoder.close()
        assert model() is not None
        twin.close()
        assert model() is None

    def test_a_pickle_has_neither_weights_nor_token(self, fake):
        """It is small, loads by itself, and gives the same vectors."""
        encoder = make(fake, token="hf_secret", query_instruction="kept")
        vector = encoder.encode("x", task="query")
        pickled = pickle.dumps(encoder)
        assert b"hf_secret" not in pickled
        assert len(pickled) < 4096
        np.testing.assert_array_equal(pickle.loads(pickled).encode("x", task="query"), vector)

    def test_the_token_is_not_in_the_repr(self, fake):
        """Logs often print objects."""
        encoder = make(fake, token="hf_secret")
        assert "hf_secret" not in repr(encoder) + repr(encoder._acquire().configuration)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_works_on_its_own(self, fake, clips):
        """Locks and threads do not survive a fork; the child makes its own and leaves the parent's files alone."""
        encoder = make(fake)
        before = encoder.encode(AudioClip(clips[0]), task="query")
        encoder._handle.turn.acquire()  # as if another thread were in the model at this moment
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                assert workspace._folder is None
                same = np.array_equal(encoder.encode(AudioClip(clips[0]), task="query"), before)
                os._exit(0 if same else 1)
            except BaseException:
                os._exit(2)
        encoder._handle.turn.release()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        np.testing.assert_array_equal(encoder.encode(AudioClip(clips[0]), task="query"), before)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_fork_while_another_model_loads(self, fake, tmp_path):
        """The child says so, and does not wait for a load that goes on in the parent only."""
        slow = fake_checkpoints.CODE.replace("self.post_init()", "fake_checkpoints.in_constructor(); self.post_init()")
        entered, leave = threading.Event(), threading.Event()
        fake_checkpoints.in_constructor = lambda: (entered.set(), leave.wait(60))
        loading = make(fake_checkpoints.write(tmp_path / "slow", slow))
        thread = threading.Thread(target=loading.encode, args=("x",), kwargs={"task": "query"})
        thread.start()
        assert entered.wait(60)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                if os.fork() == 0:  # a grandchild is no better off
                    signal.alarm(60)
                    make(fake).encode("x", task="query")
                    os._exit(3)
                assert os.waitstatus_to_exitcode(os.wait()[1]) != 3
                make(fake).encode("x", task="query")
            except CheckpointError as error:
                os._exit(0 if "forked while" in str(error) else 1)
            finally:
                os._exit(2)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        leave.set()
        thread.join(60)
        assert status == 0


def files_in(root):
    return sorted(path for path in Path(root).rglob("*") if path.is_file() and path.name not in ("lock", "alive"))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Temporary audio goes to a folder of this test's own."""
    monkeypatch.setenv(workspace_module.SCRATCH_VARIABLE, str(tmp_path))
    workspace.remove()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv(workspace_module.SCRATCH_VARIABLE, str(tmp_path / "scratch"))
    yield tmp_path / "scratch"
    workspace.remove()


class TestTemporaryFiles:
    def test_they_are_private_and_gone_after_the_call(self, encoder, clips, scratch):
        """While the model reads them nobody else can; afterwards there are none."""
        seen = []

        def look(model, keywords):
            for path in map(Path, keywords.get("audio", [])):
                seen.append(path)
                assert scratch in path.parents
                assert all(parent.stat().st_mode & 0o077 == 0 for parent in path.parents if scratch in parent.parents)

        fake_checkpoints.loaded(encoder)
        fake_checkpoints.on_encode = look
        encoder.encode([AudioClip(clip) for clip in clips], task="query")
        assert len(seen) == len(clips)
        assert files_in(scratch) == []

    def test_a_crash_inside_the_model_leaves_none(self, encoder, clips, scratch):
        """Whatever is raised."""

        def crash(model, keywords):
            assert files_in(scratch)
            raise KeyboardInterrupt

        assert encoder.dim
        fake_checkpoints.on_encode = crash
        with pytest.raises(KeyboardInterrupt):
            encoder.encode([AudioClip(clip) for clip in clips], task="query")
        assert files_in(scratch) == []

    def test_a_killed_process_is_swept_up_by_the_next(self, scratch, clips):
        """A folder whose process was killed is removed; that of a living one stays."""
        script = """
            import sys, time
            from alm2vec_integrations.audio.workspace import workspace
            with workspace.batch_folder() as folder:
                (folder / "left.wav").write_bytes(b"RIFF")
                print("ready", flush=True)
                time.sleep(600)
        """
        command = [sys.executable, "-P", "-c", textwrap.dedent(script)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as living,
        ):
            try:
                assert killed.stdout.readline() == living.stdout.readline() == "ready\n"
                assert len(files_in(scratch)) == 2
                killed.send_signal(signal.SIGKILL)
                killed.wait(30)
                with workspace.batch_folder():
                    left = files_in(scratch)
                assert len(left) == 1
                assert left[0].parent.parent.name.startswith(f"{living.pid}-")
            finally:
                killed.kill()
                living.kill()

    def test_many_processes_at_once(self, scratch):
        """Each comes and goes while the others make and sweep theirs."""
        script = (
            "from alm2vec_integrations.audio.workspace import workspace\n"
            "for _ in range(20):\n"
            "    with workspace.batch_folder() as folder: (folder / 'x').write_bytes(b'x')\n"
            "    workspace.remove()"
        )
        started = [
            subprocess.Popen([sys.executable, "-P", "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(6)
        ]
        errors = [process.communicate(timeout=120)[1] for process in started]
        assert errors == [""] * 6
        assert files_in(scratch) == []

    def test_a_folder_that_cannot_be_swept_stops_nobody(self, scratch, monkeypatch, caplog):
        """It is named in the log."""
        with workspace.batch_folder():
            pass
        root = scratch / f"alm2vec-{os.getuid()}"
        (root / "stale").mkdir()
        workspace.remove()

        def fail(path, **keywords):
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(workspace_module.shutil, "rmtree", fail)
            assert workspace._own_folder().is_dir()
        assert f"{root / 'stale'} was left by a process that was killed and cannot be removed" in caplog.text

    @pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory-backed folder here")
    def test_they_are_in_memory_by_default(self, monkeypatch):
        """Where the system has such a folder."""
        workspace.remove()
        monkeypatch.delenv(workspace_module.SCRATCH_VARIABLE, raising=False)
        with workspace.batch_folder() as folder:
            assert Path("/dev/shm") in folder.parents
        workspace.remove()

    def test_a_folder_that_others_can_enter_is_refused(self, scratch):
        """Somebody may have put it there."""
        root = scratch / f"alm2vec-{os.getuid()}"
        root.mkdir(mode=0o755)
        with pytest.raises(workspace_module.ALM2VecError, match="only you can enter"), workspace.batch_folder():
            pass

    def test_no_room_says_what_to_set(self, encoder, clips, monkeypatch, tmp_path):
        """A place that cannot be written names the variable that chooses another."""
        workspace.remove()
        (tmp_path / "file").write_text("")
        monkeypatch.setenv(workspace_module.SCRATCH_VARIABLE, str(tmp_path / "file"))
        with pytest.raises(workspace_module.ALM2VecError, match=workspace_module.SCRATCH_VARIABLE):
            encoder.encode(AudioClip(clips[0]), task="query")
