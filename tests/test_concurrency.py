"""Many callers, one model: turns, the event loop, and whose vectors are whose."""

import asyncio
import contextlib
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fake_checkpoints
import numpy as np
import pytest

from alm2vec_integrations import QUERY_INSTRUCTION, ALM2VecEncoder, AudioClip
from alm2vec_integrations.audio import decoding
from alm2vec_integrations.fair_lock import FairLock

WAIT = 30  # seconds until a test that hangs fails


class Gate:
    """Holds the model inside `encode` until it is opened, one call at a time."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.order = []
        fake_checkpoints.on_encode = self

    def __call__(self, model, keywords):
        self.order.append(keywords["text"])
        self.entered.release()
        assert self.leave.acquire(timeout=WAIT)

    def let_one_through(self):
        assert self.entered.acquire(timeout=WAIT)
        self.leave.release()


async def test_the_event_loop_runs_on_while_the_model_is_busy(encoder):
    """Another coroutine finishes although `encode` is blocked inside the model."""
    assert encoder.dim
    gate = Gate()
    call = asyncio.create_task(encoder.aencode("blocked", task="query"))
    while not gate.order:
        await asyncio.sleep(0.001)  # the model is inside encode now, and stays there
    finished = []

    async def another():
        for step in range(3):
            await asyncio.sleep(0)
            finished.append(step)

    await asyncio.wait_for(another(), timeout=WAIT)
    assert finished == [0, 1, 2]
    assert not call.done()
    gate.leave.release()
    assert (await asyncio.wait_for(call, timeout=WAIT)).shape == (fake_checkpoints.DIM,)


async def test_a_blocked_model_leaves_the_default_executor_free(encoder):
    """Other code's `asyncio.to_thread` is not starved by calls that wait for their turn."""
    assert encoder.dim
    gate = Gate()
    calls = [asyncio.create_task(encoder.aencode(f"{i}", task="query")) for i in range(100)]
    while not gate.order:
        await asyncio.sleep(0.001)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "served"), timeout=WAIT) == "served"
    fake_checkpoints.on_encode = None
    gate.leave.release()
    await asyncio.wait_for(asyncio.gather(*calls), timeout=WAIT)


@pytest.mark.parametrize("query_is_async", [False, True], ids=["thread", "aencode"])
async def test_a_query_passes_an_indexing_job_within_one_micro_batch(fake, query_is_async):
    """It waits for the forward pass under way, and for no other."""
    with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=1) as encoder:
        assert encoder.dim
        gate = Gate()
        with ThreadPoolExecutor(2) as threads:
            indexing = threads.submit(encoder.encode, [f"document {i:02}" for i in range(20)], task="document")
            await asyncio.to_thread(gate.let_one_through)
            await asyncio.to_thread(gate.entered.acquire)  # the second micro-batch is in the model
            if query_is_async:
                query = asyncio.create_task(encoder.aencode("query", task="query"))
            else:
                query = asyncio.wrap_future(threads.submit(encoder.encode, "query", task="query"))
            while not encoder._handle.turn._waiting:
                await asyncio.sleep(0.001)
            gate.leave.release()
            await asyncio.to_thread(gate.let_one_through)
            await asyncio.wait_for(query, timeout=WAIT)
            assert gate.order[2] == ["query"]
            assert not indexing.done()
            fake_checkpoints.on_encode = None
            for _ in range(20):
                gate.leave.release()
            assert len(await asyncio.wrap_future(indexing)) == 20


async def test_a_query_beside_many_async_jobs_waits_for_one_step_of_each(fake):
    """Alternation holds among `aencode` calls too, however long their lists are."""
    jobs = 12
    with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=1) as encoder:
        assert encoder.dim
        gate = Gate()
        indexing = [
            asyncio.create_task(encoder.aencode([f"{job}/{i}" for i in range(500)], task="document"))
            for job in range(jobs)
        ]
        for _ in range(2 * jobs):
            await asyncio.to_thread(gate.let_one_through)
        before = len(gate.order)
        query = asyncio.create_task(encoder.aencode("query", task="query"))
        while not query.done():
            await asyncio.to_thread(gate.let_one_through)
            await asyncio.sleep(0.01)
        assert gate.order.index(["query"]) - before <= jobs + 1
        fake_checkpoints.on_encode = None
        for task in indexing:
            task.cancel()
        for _ in range(10):
            gate.leave.release()
        await asyncio.to_thread(encoder._handle.executor("text").shutdown)


async def test_a_text_does_not_queue_behind_decoding(fake, clips, monkeypatch):
    """Recordings that take long to decode hold up recordings, not questions."""
    blocked = threading.Semaphore(0)
    original = decoding.decode

    def slow(clip, policy):
        assert blocked.acquire(timeout=WAIT)
        return original(clip, policy)

    with ALM2VecEncoder(fake, trust_remote_code=True) as encoder:
        assert encoder.dim
        monkeypatch.setattr(decoding, "decode", slow)
        jobs = [asyncio.create_task(encoder.aencode(AudioClip(clips[0]), task="document")) for _ in range(20)]
        await asyncio.sleep(0.05)
        query = await asyncio.wait_for(encoder.aencode("query", task="query"), timeout=WAIT)
        np.testing.assert_array_equal(query, fake_checkpoints.expected("query", "query", QUERY_INSTRUCTION))
        assert not any(job.done() for job in jobs)
        for _ in jobs:
            blocked.release()
        await asyncio.wait_for(asyncio.gather(*jobs), timeout=WAIT)


def _encode_from_threads(encoder):
    """Eight threads encode texts of their own while each forward pass takes a moment."""
    fake_checkpoints.on_encode = lambda model, keywords: time.sleep(0.002)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: encoder.encode(f"{i}", task="query"), range(40)))


def test_forward_passes_never_overlap(encoder):
    """One at a time, however many threads ask."""
    assert encoder.dim
    _encode_from_threads(encoder)
    assert not fake_checkpoints.overlapping.is_set()


def test_without_the_lock_they_would(encoder):
    """The test above can fail: with the lock taken out, forward passes overlap."""
    assert encoder.dim
    encoder._handle.turn = contextlib.nullcontext()
    _encode_from_threads(encoder)
    assert fake_checkpoints.overlapping.is_set()


async def test_every_caller_gets_its_own_vectors(encoder):
    """1,000 concurrent `aencode` calls and eight threads, each with its own text and instruction."""

    async def from_asyncio(i):
        return await encoder.aencode([f"async {i}", "same"], task="query", instruction=f"instruction {i % 7}")

    def from_a_thread(number):
        texts = [f"thread {number} text {i}" for i in range(20)]
        return texts, [encoder.encode(text, task="query") for text in texts]

    with ThreadPoolExecutor(8) as threads:
        in_threads = [threads.submit(from_a_thread, number) for number in range(8)]
        rows = await asyncio.wait_for(asyncio.gather(*(from_asyncio(i) for i in range(1000))), timeout=10 * WAIT)
        for i, (own, same) in enumerate(rows):
            instruction = f"instruction {i % 7}"
            np.testing.assert_array_equal(own, fake_checkpoints.expected(f"async {i}", "query", instruction))
            np.testing.assert_array_equal(same, fake_checkpoints.expected("same", "query", instruction))
        for texts, vectors in (future.result() for future in in_threads):
            for text, vector in zip(texts, vectors, strict=True):
                np.testing.assert_array_equal(vector, fake_checkpoints.expected(text, "query", QUERY_INSTRUCTION))


async def test_context_variables_reach_the_model(encoder):
    """Tracing and the like see the caller's context on the other side of the hop."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def look(model, keywords):
        seen.append(variable.get())

    assert encoder.dim
    fake_checkpoints.on_encode = look
    variable.set("mine")
    await encoder.aencode("x", task="query")
    assert seen == ["mine"]


async def test_a_cancelled_call_stops_after_the_step_that_runs(fake):
    """The rest of its micro-batches never reach the model, and others are served."""
    with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=1) as encoder:
        fake_checkpoints.loaded(encoder)
        gate = Gate()
        call = asyncio.create_task(encoder.aencode([f"{i}" for i in range(10)], task="query"))
        while not gate.order:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        fake_checkpoints.on_encode = None
        gate.leave.release()
        await asyncio.wait_for(encoder.aencode("after", task="query"), timeout=WAIT)
        assert [c["text"] for c in fake_checkpoints.calls] == [["0"], ["after"]]


def test_clips_from_many_threads(encoder, clips):
    """Temporary files of concurrent calls do not meet."""
    alone = {clip: encoder.encode(AudioClip(clip), task="document") for clip in clips}

    def work(seed):
        order = np.random.default_rng(seed).permutation(clips)
        return order, encoder.encode([AudioClip(clip) for clip in order], task="document")

    with ThreadPoolExecutor(8) as threads:
        for order, rows in threads.map(work, range(16)):
            for clip, row in zip(order, rows, strict=True):
                np.testing.assert_array_equal(row, alone[clip])


class TestFairLock:
    def test_waiters_are_served_in_order(self):
        """Whoever came first is next, also against a thread that takes the lock again at once."""
        lock, served = FairLock(), []
        lock.acquire()
        threads = []
        for number in range(5):
            thread = threading.Thread(
                target=lambda n=number: (lock.acquire(), served.append(n), lock.release()), daemon=True
            )
            thread.start()
            threads.append(thread)
            while len(lock._waiting) <= number:
                time.sleep(0.001)
        lock.release()
        lock.acquire()
        assert served == [0, 1, 2, 3, 4]
        lock.release()
        for thread in threads:
            thread.join(WAIT)

    def test_an_interrupted_waiter_leaves_the_queue(self, monkeypatch):
        """A KeyboardInterrupt while waiting neither takes the lock nor blocks those behind."""
        lock = FairLock()
        lock.acquire()

        class Interrupted:
            def __init__(self):
                self.taken = False

            def acquire(self):
                if self.taken:
                    raise KeyboardInterrupt
                self.taken = True

        with monkeypatch.context() as patch:
            patch.setattr("alm2vec_integrations.fair_lock.threading.Lock", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()
