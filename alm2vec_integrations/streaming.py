"""A corpus that does not fit in memory: items in, vectors and failures out, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from .runtime import Failure, Job

WINDOW_BATCHES = 8
"""Micro-batches' worth of items that are planned together: enough to put near-equal lengths side by side."""


def stream(
    items: Iterable[Any], make_job: Callable[[list[Any], int], Job], window: int
) -> Iterator[tuple[int, npt.NDArray[np.float32] | Failure]]:
    """Embed `window` items at a time; while they are in the model, the next ones' audio is decoded.

    Args:
        items: read as they are needed, never more than two windows ahead of what was yielded.
        make_job: from a list of items and the position of its first.
        window: how many items are planned together.
    """
    source = _Windows(items, window)
    first = 0
    current: Job | None = None
    following: Job | None = None
    preparing: Future[None] | None = None
    try:
        while True:
            taken = source.next()
            if taken:
                following = make_job(taken, first)
                preparing = following.prepare_in_background()
                first += len(taken)
            if current is not None:
                for _ in current.steps():
                    pass
                yield from current.in_order()
            if following is None or preparing is None:
                break
            preparing.result()
            current, following, preparing = following, None, None
    finally:
        if preparing is not None:
            wait([preparing])
        for job in (current, following):
            if job is not None:
                job.close()
    if source.error is not None:
        raise source.error


class _Windows:
    """Lists of up to `size` items; an error of the source's own waits until what came before it is done."""

    def __init__(self, items: Iterable[Any], size: int) -> None:
        self._items = iter(items)
        self._size = size
        self.error: Exception | None = None

    def next(self) -> list[Any]:
        """The next list, empty at the end."""
        taken: list[Any] = []
        while self.error is None and len(taken) < self._size:
            try:
                taken.append(next(self._items))
            except StopIteration:
                break
            except Exception as error:
                self.error = error
        return taken
