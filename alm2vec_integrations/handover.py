"""A micro-batch's audio on its way to the model: decoded into WAV files, ahead of the forward pass."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from .audio.decoding import SAMPLING_RATE
from .audio.workspace import workspace
from .errors import ALM2VecError, InputError
from .planning import Entry, MicroBatch

logger = logging.getLogger(__name__)

_MOST_AHEAD_BYTES = 256 * 2**20
"""Of decoded audio that waits for the model, in all calls of a process together: 2.3 hours of it."""


_SPARED_BYTES = 16 * 2**20
"""Left free in the folder for temporary audio when decoding ahead."""


Write: TypeAlias = Callable[[Sequence[tuple[Entry, str]]], Sequence[Exception | None]]


class _Budget:
    """Bytes that may be decoded before they are needed."""

    def __init__(self, most: int) -> None:
        self._mutex = threading.Lock()
        self._most = most
        self._taken = 0

    def take(self, size: int, room: int) -> bool:
        """Take `size` if it is there, and if `room` has it beside all that was taken and may not be written yet."""
        with self._mutex:
            if self._taken + size > min(self._most, room):
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._mutex:
            self._taken -= size


_ahead = _Budget(_MOST_AHEAD_BYTES)


class Handover:
    """One micro-batch's files; none for text.

    Args:
        batch: what to decode.
        executor: the threads.
        write: decodes entries' clips to paths, in one of the threads, and returns for each what went wrong, or None.
        together: how many entries it gets at a time.
        taken: bytes of the budget that are given back in the end.
    """

    def __init__(self, batch: MicroBatch, executor: Executor, write: Write, *, together: int, taken: int = 0) -> None:
        self.batch = batch
        self._executor = executor
        self._write = write
        self._taken = taken
        self._mutex = threading.Lock()
        self._folder: Path | None = None
        self._futures: list[Future[Sequence[Exception | None]]] = []
        self._places: dict[int, tuple[int, int]] = {}
        self._paths: dict[int, str] = {}
        if batch.kind == "text":
            return
        try:
            self._folder = workspace.new_folder()
            for start in range(0, len(batch.entries), together):
                part = batch.entries[start : start + together]
                for place, entry in enumerate(part):
                    self._paths[entry.position] = str(self._folder / f"{entry.position}.wav")
                    self._places[entry.position] = len(self._futures), place
                self._futures.append(executor.submit(write, [(entry, self._paths[entry.position]) for entry in part]))
        except BaseException:
            self.close()
            raise

    def path(self, entry: Entry) -> str | None:
        """The entry's file, once it is written; None for text.

        What failed for want of room or memory while others were decoded too is done once more, by itself.

        Raises:
            InputError: the clip cannot be decoded.
            MemoryError: nor is there memory for it alone.
            ALM2VecError: nor room in the folder for temporary audio.
        """
        if entry.position not in self._places:
            return None
        path = self._paths[entry.position]
        future, place = self._places[entry.position]
        error = self._futures[future].result()[place]
        if isinstance(error, (MemoryError, ALM2VecError)) and not isinstance(error, InputError):
            logger.warning(
                "decoding again, by itself, what failed beside others: %s", str(error) or type(error).__name__
            )
            self.finish()
            self._futures.append(self._executor.submit(self._write, [(entry, path)]))
            (error,) = self._futures[-1].result()
        if error is not None:
            raise error
        return path

    @property
    def done(self) -> bool:
        """Whether no thread works, or is to work, for this batch."""
        return all(future.done() for future in self._futures)

    def finish(self) -> None:
        """Wait until no thread works for this batch."""
        wait(self._futures)

    def close(self, *, wait: bool = True) -> None:
        """Stop decoding and remove the files: now, or if not `wait`, when the threads that write them are done."""
        running = [future for future in self._futures if not future.cancel() and not future.done()]
        if wait:
            for future in running:
                future.exception()
            self._remove()
            return
        left = len(running)
        if not left:
            self._remove()

        def one_less(_: Future[Any]) -> None:
            nonlocal left
            with self._mutex:
                left -= 1
                last = left == 0
            if last:
                self._remove()

        for future in running:
            future.add_done_callback(one_less)

    def _remove(self) -> None:
        with self._mutex:
            folder, self._folder = self._folder, None
            taken, self._taken = self._taken, 0
        _ahead.give(taken)
        if folder is not None:
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)


def ahead(batch: MicroBatch, executor: Executor, write: Write, *, together: int) -> Handover | None:
    """A handover that is not needed yet, or None if enough waits already."""
    size = sum(round(2 * SAMPLING_RATE * entry.seconds) for entry in batch.entries)
    # A batch whose turn it is comes first, and may be as large: a container's memory-backed folder may hold 64 MiB.
    room = workspace.free_bytes() - _SPARED_BYTES - size
    return Handover(batch, executor, write, together=together, taken=size) if _ahead.take(size, room) else None


def _forget_after_fork() -> None:
    global _ahead
    _ahead = _Budget(_MOST_AHEAD_BYTES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
