"""A lock that is handed to whoever has waited longest."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A mutual exclusion lock with first-come, first-served hand-over.

    `threading.Lock` lets a thread that releases and takes again in a loop keep it for long stretches. Here the
    releasing thread passes the lock to the longest waiter, so threads that want it take turns.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self) -> None:
        """Wait for the lock."""
        with self._mutex:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()  # opened by the one who hands over
        except BaseException:
            # Interrupted while waiting: step out of the queue, or pass on what was handed over meanwhile.
            with self._mutex:
                handed_over = gate not in self._waiting
                if not handed_over:
                    self._waiting.remove(gate)
            if handed_over:
                self.release()
            raise

    def release(self) -> None:
        """Hand the lock to the longest waiter, or free it."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
