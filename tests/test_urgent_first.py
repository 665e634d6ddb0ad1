"""`UrgentFirst`: the order of work, and that all of it is done."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import pytest

from alm2vec_integrations.urgent_first import UrgentFirst


@pytest.fixture
def held():
    """One thread, which is busy until `opened` is set."""
    with ThreadPoolExecutor(1) as executor:
        opened, threads = threading.Event(), UrgentFirst(executor)
        threads.submit(opened.wait)
        yield threads, opened
        opened.set()


def test_order(held):
    """What is waited for first, each queue in its order; now and then one that was begun ahead."""
    threads, opened = held
    done = []
    ahead = [threads.submit(partial(done.append, f"ahead {i}"), later=True) for i in range(3)]
    urgent = [threads.submit(partial(done.append, f"urgent {i}")) for i in range(9)]
    opened.set()
    wait([*ahead, *urgent])
    assert done[0] == "urgent 0"
    assert [one for one in done if one.startswith("urgent")] == [f"urgent {i}" for i in range(9)]
    assert [one for one in done if one.startswith("ahead")] == [f"ahead {i}" for i in range(3)]
    assert 1 <= done.index("ahead 0") < done.index("urgent 8"), "what is urgent must not keep the rest for ever"
    assert done.index("ahead 2") > done.index("urgent 6")


def test_outcomes(held):
    """What work returns or raises; what is cancelled is not done, and the rest is."""
    threads, opened = held

    def fail():
        raise KeyError("x")

    failing, cancelled, fine = threads.submit(fail), threads.submit(pytest.fail, later=True), threads.submit(dict)
    assert cancelled.cancel()
    opened.set()
    assert fine.result(10) == {}
    with pytest.raises(KeyError):
        failing.result(10)
    assert cancelled.cancelled()


def test_many_threads_submit_and_all_is_done():
    """None is forgotten, and none done twice."""
    done = []
    with ThreadPoolExecutor(8) as executor, ThreadPoolExecutor(8) as callers:
        threads, order = UrgentFirst(executor), random.Random(0)
        wanted = [(number, order.random() < 0.5) for number in range(4000)]
        begun = callers.map(lambda one: threads.submit(partial(done.append, one[0]), later=one[1]), wanted)
        assert not wait(list(begun), timeout=60).not_done
    assert sorted(done) == list(range(4000))
