"""Threads that do what is waited for before what is begun ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class UrgentFirst:
    """An executor with two queues, so that a question does not wait behind what an indexing job has begun ahead.

    Args:
        executor: the threads; nothing else is submitted to them.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._now: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._later: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, work: Callable[[], T], *, later: bool = False) -> Future[T]:
        """Have `work` done in the order of submission; `later` if none waits that was submitted without it."""
        future: Future[T] = Future()
        (self._later if later else self._now).append((future, work))
        self._executor.submit(self._do_one)
        return future

    def _do_one(self) -> None:
        # As often as something was put in, so that one of the two has something.
        try:
            future, work = self._now.popleft()
        except IndexError:
            future, work = self._later.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            found = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)
