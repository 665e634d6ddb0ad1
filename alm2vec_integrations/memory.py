"""When the device runs out of memory: how it says so, and what size of batch it took."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

from .inputs import Kind
from .planning import Entry

_SAID = re.compile(r"out of memory|ALLOC_FAILED|DefaultCPUAllocator|bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the device or of the host, ran out."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # Other allocators, and libraries that allocate for themselves, have no class of their own.
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def padded_size(entries: Sequence[Entry]) -> float:
    """What a batch takes, each entry counted as the longest: seconds of audio, or characters where there is none."""
    seconds = max(entry.seconds for entry in entries)
    return len(entries) * (seconds or max(entry.characters for entry in entries))


class MemoryBound:
    """The largest padded size to try, by kind of item; found out by failing."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._most: dict[Kind, float] = {}

    def lower(self, kind: Kind, failed: Sequence[Entry]) -> float:
        """Note that `failed` was too much; returns the new bound, half of it."""
        with self._mutex:
            bound = min(self._most.get(kind, float("inf")), padded_size(failed) / 2)
            self._most[kind] = bound
            return bound

    def pieces(self, kind: Kind, entries: Sequence[Entry]) -> list[Sequence[Entry]]:
        """`entries` cut in halves until each is within the bound or alone."""
        if len(entries) == 1 or padded_size(entries) <= self._most.get(kind, float("inf")):
            return [entries]
        middle = len(entries) // 2
        return self.pieces(kind, entries[:middle]) + self.pieces(kind, entries[middle:])


def release_cached() -> None:
    """Give back what the device's allocator keeps for later, so that the next try finds it whole."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # does nothing where CUDA was not used
