"""`encode_stream`: every item once, in order, in memory that does not grow; decoding ahead; running out of memory."""

import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import fake_checkpoints
import numpy as np
import pytest
import sounds
import torch

from alm2vec_integrations import ALM2VecEncoder, ALM2VecError, AudioClip, AudioText, Failure, InputError
from alm2vec_integrations.audio import decoding
from alm2vec_integrations.audio.workspace import workspace


def folders():
    """Temporary audio of this process."""
    own = workspace._folder
    return [path for path in own.iterdir() if path.is_dir()] if own is not None and own.is_dir() else []


def collect(encoder, items, **keywords):
    keywords.setdefault("task", "document")
    return list(encoder.encode_stream(items, **keywords))


class Opened(list):
    """Handovers whose files may be there."""

    def on_change(self):
        """Called when one is added."""


def open_handovers(monkeypatch):
    """Those of this process, from now on."""
    from alm2vec_integrations import audio_loader, handover

    opened = Opened()

    class Seen(handover.Handover):
        def __init__(self, *values, **keywords):
            super().__init__(*values, **keywords)
            opened.append(self)
            opened.on_change()

        def close(self, **keywords):
            super().close(**keywords)
            if self in opened:
                opened.remove(self)

    monkeypatch.setattr(handover, "Handover", Seen)
    monkeypatch.setattr(audio_loader, "Handover", Seen)
    return opened


@pytest.fixture
def small(fake):
    """An encoder whose windows are of 16 items."""
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu", max_batch_items=2) as encoder:
        fake_checkpoints.loaded(encoder)
        yield encoder


class TestResults:
    def test_every_item_in_order(self, small, clips):
        """Mixed kinds, over several windows: what `encode` gives, or a failure that names the item."""
        good = [*map(AudioClip, clips), *(f"text {i}" for i in range(30)), AudioText("what?", AudioClip(clips[0]))]
        broken = {5: AudioClip("missing.wav"), 17: "", 40: 3, 43: AudioClip(b"not audio")}
        items = list(good)
        for index, item in broken.items():
            items.insert(index, item)
        found = collect(small, iter(items))
        assert [index for index, _ in found] == list(range(len(items)))
        failures = {index: value for index, value in found if isinstance(value, Failure)}
        assert set(failures) == set(broken)
        assert all(failure.index == index and failure.reason for index, failure in failures.items())
        assert failures[5].source == "missing.wav"
        vectors = np.stack([value for _, value in found if not isinstance(value, Failure)])
        np.testing.assert_array_equal(vectors, small.encode(good, task="document"))

    def test_instruction_task_and_norm(self, small):
        """As given, or the encoder's own."""
        raw = dict(collect(small, ["a"], task="query", instruction="other", normalize=False))[0]
        np.testing.assert_array_equal(raw, small.encode("a", task="query", instruction="other", normalize=False))
        assert abs(np.linalg.norm(raw) - 1) > 0.01

    @pytest.mark.parametrize(
        "items", ["text", AudioClip("x.wav"), 3, None, b"ab", np.zeros(9), io.BytesIO(b"ab"), {"path": "x.wav"}, {"a"}]
    )
    def test_one_item_is_not_a_stream(self, small, items):
        """Nor is what is not a collection of items; said at the call, before anything is asked of the iterator."""
        with pytest.raises(InputError, match=r"use encode for one item|or a list of them, got"):
            small.encode_stream(items, task="document")

    @pytest.mark.parametrize(
        "wrong", [{"task": "other"}, {"task": "other", "instruction": "x"}, {"instruction": ["a"]}, {"normalize": 1}]
    )
    def test_wrong_arguments(self, small, wrong):
        """Said at the call too."""
        with pytest.raises(InputError):
            small.encode_stream(["a"], **{"task": "query", **wrong})

    def test_nothing(self, small):
        """Gives nothing."""
        assert collect(small, []) == []


class TestFlow:
    def test_reads_no_more_than_it_says(self, small):
        """Two windows ahead of what was yielded."""
        read = 0

        def items():
            nonlocal read
            for i in range(200):
                read += 1
                yield f"text {i}"

        for index, _ in small.encode_stream(items(), task="query"):
            assert read <= (index // 16 + 2) * 16
        assert read == 200

    def test_an_error_of_the_source_comes_last(self, small):
        """What it gave before is not lost."""

        def items():
            yield from ("a", "b", "c")
            raise ConnectionError("the database went away")

        stream = small.encode_stream(items(), task="query")
        assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ConnectionError, match="went away"):
            next(stream)

    def test_a_model_that_fails(self, small, clips):
        """Is no item's fault: raised, and nothing of the audio that was decoded stays behind."""

        def fail(model, keywords):
            raise RuntimeError("the model broke")

        fake_checkpoints.on_encode = fail
        with pytest.raises(RuntimeError, match="the model broke"):
            collect(small, [AudioClip(clip) for clip in clips * 5])
        assert folders() == []

    def test_a_stream_that_is_left(self, small, clips):
        """Leaves nothing behind."""
        for index, _ in small.encode_stream((AudioClip(clips[i % 10]) for i in range(500)), task="query"):
            if index == 20:
                break
        deadline = time.monotonic() + 10
        while folders() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert folders() == []

    def test_audio_is_decoded_while_the_model_works(self, small, clips, monkeypatch):
        """The next batches' files are being written during a forward pass, and no more than those."""
        from alm2vec_integrations import runtime

        decoded, reached, real = [], threading.Event(), decoding.decode

        def decode(clip, policy):
            samples = real(clip, policy)
            decoded.append(clip)
            if len(decoded) >= 4:
                reached.set()
            return samples

        most = 0

        def wait_for_others(model, keywords):
            nonlocal most
            if len(fake_checkpoints.calls) == 1:
                assert reached.wait(10), "nothing was decoded during the forward pass"
                time.sleep(0.2)
            most = max(most, len(decoded) - 2 * (len(fake_checkpoints.calls) - 1))

        monkeypatch.setattr(decoding, "decode", decode)
        fake_checkpoints.on_encode = wait_for_others
        small.encode([AudioClip(clip) for clip in clips * 3], task="document")
        assert most <= 2 * (1 + runtime._BATCHES_BEGUN + 1)
        assert len(decoded) == 30

    def test_no_more_than_the_budget_is_ahead(self, small, clips, monkeypatch):
        """Nothing where there is none; and what was taken is given back."""
        from alm2vec_integrations import handover

        decoded, most, real = [], 0, decoding.decode
        monkeypatch.setattr(decoding, "decode", lambda clip, policy: decoded.append(clip) or real(clip, policy))

        def look(model, keywords):
            nonlocal most
            time.sleep(0.02)
            most = max(most, len(decoded) - 2 * (len(fake_checkpoints.calls) - 1))

        fake_checkpoints.on_encode = look
        monkeypatch.setattr(handover, "_ahead", handover._Budget(0))
        small.encode([AudioClip(clip) for clip in clips], task="document")
        assert most == 2
        budget = handover._Budget(10**9)
        fake_checkpoints.calls.clear()
        decoded.clear()
        monkeypatch.setattr(handover, "_ahead", budget)
        small.encode([AudioClip(clip) for clip in clips], task="document")
        assert most > 2
        collect(small, [AudioClip(clip) for clip in clips] * 5)
        small.encode_partial([AudioClip("missing.wav"), AudioClip(clips[0])], task="query")
        assert budget._taken == 0

    def test_what_is_ready_and_what_is_in_the_making(self, small, clips, monkeypatch):
        """Much may be ready; little is begun at a time, as other jobs' audio waits behind it."""
        from alm2vec_integrations import runtime

        opened = open_handovers(monkeypatch)
        in_the_making, ready = [], []

        def look(model, keywords):
            deadline = time.monotonic() + 20
            while not all(each.done for each in opened):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            ready.append(len(opened) - 1)  # without the one that is in the model

        opened.on_change = lambda: in_the_making.append(sum(not each.done for each in opened))
        fake_checkpoints.on_encode = look
        begun, all_ready = runtime._BATCHES_BEGUN, runtime._BATCHES_READY
        for decoding_in, least, most in ("threads", 1, begun), ("processes", begun + 1, all_ready):
            monkeypatch.setenv("ALM2VEC_DECODING", decoding_in)
            in_the_making.clear()
            ready.clear()
            small.encode_document([AudioClip(clip) for clip in clips * 4])
            # Beside the one whose turn it is.
            assert 1 <= max(in_the_making) <= begun + 1
            assert least <= max(ready) <= most
            assert opened == []

    @pytest.mark.parametrize("decoding_in", ["threads", "processes"])
    def test_room_that_is_promised_is_not_promised_again(self, small, tmp_path, monkeypatch, decoding_in):
        """Until it is written, audio takes room that the system counts as free."""
        from alm2vec_integrations import handover

        paths = [sounds.write(tmp_path / f"{i}.wav", np.zeros(16_000 * 4)) for i in range(12)]
        size, opened, most = 2 * 4 * 32_000, open_handovers(monkeypatch), 0
        capacity = round(2.5 * size)

        def watch():
            nonlocal most
            most = max(most, len(opened))

        opened.on_change = watch
        monkeypatch.setenv("ALM2VEC_DECODING", decoding_in)
        monkeypatch.setattr(handover, "_SPARED_BYTES", 0)
        monkeypatch.setattr(workspace, "free_bytes", lambda: capacity)  # nothing is written yet
        small.encode_document([AudioClip(path) for path in paths])
        assert most == 2, "the batch whose turn it is, and one ahead"

    def test_little_room_for_temporary_audio(self, small, clips, monkeypatch):
        """A container's memory-backed folder is small: nothing is decoded ahead into room that is needed now."""
        from alm2vec_integrations import handover

        monkeypatch.setattr(workspace, "free_bytes", lambda: 1000)
        started, real = [], handover.Handover
        monkeypatch.setattr(handover, "Handover", lambda *a, **k: started.append(1) or real(*a, **k))
        assert len(collect(small, [AudioClip(clip) for clip in clips] * 5)) == 50
        assert started == []

    @pytest.mark.parametrize("error", [MemoryError(), OSError("gone"), ALM2VecError("no room")])
    def test_what_cannot_be_begun_ahead(self, small, clips, monkeypatch, caplog, error):
        """Is begun when it is needed; that there was no room for it is not taken for the model's want of memory."""

        def fail(*_, **__):
            raise error

        expected = small.encode([AudioClip(clip) for clip in clips], task="query")
        monkeypatch.setattr("alm2vec_integrations.audio_loader.ahead", fail)
        np.testing.assert_array_equal(small.encode([AudioClip(clip) for clip in clips], task="query"), expected)
        assert "nothing is decoded ahead for now" in caplog.text
        assert "out of memory" not in caplog.text

    @pytest.mark.parametrize("error", [MemoryError(), ALM2VecError("no room")])
    def test_what_failed_beside_others_is_done_again_alone(self, small, clips, monkeypatch, caplog, error):
        """Memory or room that ran out while others were decoded is no item's fault."""
        failed, real = set(), decoding.decode

        def short(clip, policy):
            if clip.path not in failed:
                failed.add(clip.path)
                raise error
            return real(clip, policy)

        items = [AudioClip(clip) for clip in clips]
        expected = small.encode(items, task="query")
        monkeypatch.setattr(decoding, "decode", short)
        found = collect(small, items, task="query")
        np.testing.assert_array_equal(np.stack([vector for _, vector in found]), expected)
        assert "decoding again, by itself" in caplog.text

    def test_what_cannot_be_decoded_even_alone(self, small, clips, monkeypatch):
        """For want of memory: that item fails, with what to do."""
        real = decoding.decode

        def short(clip, policy):
            if clip.path == str(clips[3]):
                raise MemoryError
            return real(clip, policy)

        monkeypatch.setattr(decoding, "decode", short)
        result = small.encode_partial([AudioClip(clip) for clip in clips], task="query")
        assert [failure.index for failure in result.failures] == [3]
        assert "not enough memory to decode it" in result.failures[0].reason
        assert "segment" in result.failures[0].reason


class TestOutOfMemory:
    @pytest.fixture
    def short_of_memory(self, small, caplog):
        """A model that has room for 3 s of padded audio and 40 characters, and says otherwise in torch's words."""
        sizes = []

        def room(model, keywords):
            items = len(keywords.get("audio") or keywords["text"])
            if "audio" in keywords:
                longest = max(Path(path).stat().st_size for path in keywords["audio"]) / 32_000
            else:
                longest = max(map(len, keywords["text"])) * 3 / 40
            sizes.append(items * longest)
            if items * longest > 3.01:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        fake_checkpoints.on_encode = room
        return sizes

    def test_nothing_is_lost(self, fake, clips, short_of_memory, caplog):
        """Halves until it fits, in order, said in the log; what has been learnt is not tried again."""
        with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu", max_batch_items=32) as encoder:
            items = [*map(AudioClip, clips), *(f"text number {i}" for i in range(10))]
            found = encoder.encode(items, task="document")
            assert any(size > 3.01 for size in short_of_memory)
            assert "ran out of memory with 10 items; trying again in halves" in caplog.text
            tried = len(short_of_memory)
            again = encoder.encode(items, task="document")
            assert all(size <= 3.01 for size in short_of_memory[tried:])
            fake_checkpoints.on_encode = None
            one_by_one = np.stack([encoder.encode(item, task="document") for item in items])
        np.testing.assert_array_equal(found, one_by_one)
        np.testing.assert_array_equal(again, one_by_one)

    def test_what_does_not_fit_alone_fails_alone(self, small, clips, short_of_memory, tmp_path):
        """Named, with what to do; its neighbours are embedded."""
        long = sounds.write(tmp_path / "long.wav", sounds.noise(4.0))
        items = [AudioClip(clips[0]), AudioClip(long), AudioClip(clips[1])]
        result = small.encode_partial(items, task="document")
        assert list(result.indices) == [0, 2]
        assert result.failures[0].source == str(long)
        assert "not enough memory for it alone (4 s of audio)" in result.failures[0].reason
        assert "segment" in result.failures[0].reason
        with pytest.raises(InputError, match=r"item 1, .*long\.wav: .*not enough memory"):
            small.encode(items, task="document")

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
            RuntimeError("MPS backend out of memory"),
        ],
    )
    def test_the_hosts_memory_counts_too(self, small, error):
        """Torch's allocator for the CPU has no exception of its own."""

        def room(model, keywords):
            if len(keywords["text"]) > 1:
                raise error

        fake_checkpoints.on_encode = room
        assert small.encode(["a", "b"], task="query").shape == (2, 16)


def test_ten_thousand_clips_one_in_a_hundred_broken(tmp_path):
    """All named or embedded as `encode` does it; items and results are let go of, and no memory with them."""
    script = """
        import gc
        import sys
        import weakref
        import numpy as np
        import fake_checkpoints, sounds
        from pathlib import Path
        from alm2vec_integrations import ALM2VecEncoder, AudioClip, Failure

        place = Path(sys.argv[1])
        good = [sounds.write(place / f"{i}.flac", sounds.noise(0.2 + 0.01 * i, seed=i)) for i in range(50)]
        broken = place / "broken.flac"
        broken.write_bytes(good[0].read_bytes()[:300])
        encoder = ALM2VecEncoder(fake_checkpoints.write(place / "fake"), trust_remote_code=True, device="cpu")
        expected = encoder.encode([AudioClip(path) for path in good], task="document")
        fake_checkpoints.calls = type("None", (), {"append": lambda self, call: None, "clear": lambda self: None})()

        def resident():
            return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])

        class Alive:
            now = most = 0

            def watched(self, thing):
                self.now += 1
                self.most = max(self.most, self.now)
                weakref.finalize(thing, self.less)
                return thing

            def less(self):
                self.now -= 1

        window = 8 * 32
        gc.collect()
        gc.freeze()  # so that later collections look at what the stream makes alone

        def run(count):
            items, results, bad = Alive(), Alive(), 0
            source = (items.watched(AudioClip(broken if i % 100 == 42 else good[i % 50])) for i in range(count))
            for position, (index, value) in enumerate(encoder.encode_stream(source, task="document")):
                results.watched(value)
                if position % window == 0:
                    gc.collect()  # what failed hangs in circles with its traceback
                assert position == index
                if index % 100 == 42:
                    assert isinstance(value, Failure) and value.index == index and value.source == str(broken), value
                    bad += 1
                else:
                    assert np.array_equal(value, expected[index % 50])
            assert (position + 1, bad) == (count, count // 100)
            assert items.most <= 3 * window, items.most
            assert results.most <= window, results.most
            return resident()

        run(1000)
        print(run(1000), run(10_000))
    """
    command = [sys.executable, "-P", "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path)]
    support = str(Path(__file__).parent / "support")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([support, *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 20_000  # kB; ten thousand results alone would be more in a list of vectors and paths
