"""Threads that do what is waited for before what is begun ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT_FOR_LATER = 4
"""Of so many turns one is for what is begun ahead, so that it is done some day however much is urgent."""


class UrgentFirst:
    """An executor with two queues, so that a question does not wait behind what an indexing job has begun ahead.

    Args:
        executor: the threads; nothing else is submitted to them.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._now: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._later: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._mutex = threading.Lock()
        self._turns = 0

    def submit(self, work: Callable[[], T], *, later: bool = False) -> Future[T]:
        """Have `work` done, before most of what was, or will be, submitted with `later`."""
        future: Future[T] = Future()
        (self._later if later else self._now).append((future, work))
        self._executor.submit(self._do_one)
        return future

    def _do_one(self) -> None:
        with self._mutex:
            self._turns += 1
            first, second = self._now, self._later
            if self._turns % _KEPT_FOR_LATER == 0:
                first, second = second, first
            future, work = (first or second).popleft()  # there are as many entries as calls of this
        if not future.set_running_or_notify_cancel():
            return
        try:
            found = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)
