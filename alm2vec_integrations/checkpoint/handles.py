"""One model per configuration in a process, loaded on first use, shared by all who hold its handle."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from ..fair_lock import FairLock
from ..memory import MemoryBound
from .configuration import Configuration
from .loading import LoadedModel, load

# Of the threads behind `aencode` one is in the model at a time, while others decode. Texts have threads of their own,
# so that a question does not wait for a place behind recordings that are being decoded.
Purpose = Literal["audio", "text", "decoding"]
DECODERS = max(2, min(8, os.cpu_count() or 2))
"""Threads that decode; more are in each other's way (docs/benchmarks.md)."""

_THREADS: dict[Purpose, int] = {"audio": 8, "text": 4, "decoding": DECODERS}


class ModelHandle:
    """A model that is there when needed. Whoever holds the handle keeps the model; when nobody does, it goes.

    Attributes:
        configuration: what it was made from.
        turn: taken for one micro-batch at a time, by whoever has waited longest.
        pid: the process it works in; a forked child needs its own.
        memory: how large a batch may be, as far as is known.
        warned_of_length: whether a clip past the model's training was remarked on.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.turn = FairLock()
        self.pid = os.getpid()
        self._mutex = threading.Lock()
        self._executors: dict[Purpose, ThreadPoolExecutor] = {}
        self.memory = MemoryBound()
        self.warned_of_length = False
        # The finalizer outlives the handle, so it is given the model's container and not the handle.
        self._cell: list[LoadedModel] = []
        weakref.finalize(self, _release, self._cell).atexit = False

    def loaded(self) -> LoadedModel:
        """The model, loaded now if this is the first call. After a failure the next call tries again."""
        if not self._cell:
            with self._mutex:
                if not self._cell:
                    self._cell.append(load(self.configuration))
        return self._cell[0]

    def executor(self, purpose: Purpose) -> ThreadPoolExecutor:
        """Threads for callers that must not block, with audio or text alone, and for decoding.

        Separate from the event loop's own, which others rely on.
        """
        with self._mutex_for_executors:
            if purpose not in self._executors:
                made = ThreadPoolExecutor(_THREADS[purpose], thread_name_prefix=f"alm2vec-{purpose}")
                self._executors[purpose] = made
                weakref.finalize(self, made.shutdown, wait=False).atexit = False
            return self._executors[purpose]

    # Class-wide: it is held for an instant, and must not wait for a model that is loading.
    _mutex_for_executors = threading.Lock()


_handles: weakref.WeakValueDictionary[Configuration, ModelHandle] = weakref.WeakValueDictionary()
_mutex = threading.Lock()


def acquire(configuration: Configuration) -> ModelHandle:
    """The handle for `configuration`: the one in use if there is one."""
    with _mutex:
        handle = _handles.get(configuration)
        if handle is None:
            handle = _handles[configuration] = ModelHandle(configuration)
        return handle


def _release(cell: list[LoadedModel]) -> None:
    if not cell:
        return
    cell.clear()
    # Models hold reference cycles, and their memory is needed now, not at the collector's leisure.
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _forget_after_fork() -> None:
    global _handles, _mutex
    _handles = weakref.WeakValueDictionary()
    _mutex = threading.Lock()
    ModelHandle._mutex_for_executors = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
