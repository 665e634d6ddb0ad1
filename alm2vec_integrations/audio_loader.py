"""The audio of one job: lengths first, from headers, then micro-batches as files; in threads, or apart beside a GPU."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from . import inputs
from .audio import apart
from .audio.access import AccessPolicy
from .audio.decoding import decode_all, measure
from .checkpoint.handles import ModelHandle
from .clips import AudioClip
from .errors import ALM2VecError, InputError
from .handover import Handover, ahead
from .inputs import AudioText
from .planning import Entry, MicroBatch

logger = logging.getLogger(__name__)

# Headers that a process reads at a time.
_MEASURED_AT_ONCE = 16

# Clips of a batch begun ahead that a process decodes at a time: each answer interrupts whoever drives the model.
_TOGETHER = 4


class AudioLoader:
    """Reads the headers of a job's clips and decodes its micro-batches.

    Args:
        handle: whose threads decode.
        items: of the job, unchecked.
        policy: which references may be opened.

    Attributes:
        apart: files are decoded in processes of their own.
    """

    def __init__(self, handle: ModelHandle, items: Sequence[Any], policy: AccessPolicy) -> None:
        self._handle = handle
        self._items = items
        self._policy = policy
        self.apart = apart.wanted(handle.configuration.device, sum(_file_of(item) is not None for item in items))

    def measured_apart(self, positions: range, *, in_thread: bool) -> Mapping[int, float | InputError]:
        """The lengths of files among some items, in seconds, or what was wrong with them; of none if this decodes here.

        Args:
            positions: of the items.
            in_thread: this is one of the threads that decode, and must not wait for another.
        """
        if not self.apart:
            return {}
        files = [(p, clip) for p in positions if (clip := _file_of(self._items[p])) is not None]
        clips = [clip for _, clip in files]
        parts = [clips[start : start + _MEASURED_AT_ONCE] for start in range(0, len(clips), _MEASURED_AT_ONCE)]
        measured = partial(apart.seconds_of, policy=self._policy)
        found = map(measured, parts) if in_thread else self._executor.map(measured, parts)
        lengths = [length for part in found for length in part]
        return {
            position: _no_memory(clip) if isinstance(length, MemoryError) else length
            for (position, clip), length in zip(files, lengths, strict=True)
        }

    def measure(self, clip: AudioClip) -> float:
        """The length of a clip in seconds, from its header.

        Raises:
            AudioError: as `audio.decoding.measure`.
            AudioAccessError: as there.
            InputError: there is no memory for it.
        """
        try:
            return measure(clip, self._policy).seconds
        except MemoryError as error:
            raise _no_memory(clip) from error

    def load(self, batch: MicroBatch) -> Handover:
        """Begin to decode a micro-batch that is needed next."""
        return Handover(batch, self._executor, self._write, together=1)

    def load_ahead(self, batch: MicroBatch) -> Handover | None:
        """Begin to decode a micro-batch that is needed later; None if there is no room for it yet."""
        try:
            return ahead(batch, self._executor, self._write, together=_TOGETHER if self.apart else 1)
        except (MemoryError, OSError, ALM2VecError) as error:
            logger.warning("nothing is decoded ahead for now: %s", str(error) or type(error).__name__)
            return None

    @property
    def _executor(self) -> Executor:
        return self._handle.executor("decoding")

    def _write(self, parts: Sequence[tuple[Entry, str]]) -> list[Exception | None]:
        """Decode entries' clips to paths; what went wrong with each."""
        clips = [(clip, path) for entry, path in parts if (clip := inputs.clip_of(entry.item)) is not None]
        there = [(clip, path) for clip, path in clips if self.apart and clip.path is not None]
        here = [(clip, path) for clip, path in clips if not self.apart or clip.path is None]
        errors = dict(zip([path for _, path in here], decode_all(here, self._policy), strict=True))
        if there:
            errors |= zip([path for _, path in there], apart.write(there, self._policy), strict=True)
        return [errors[path] for _, path in parts]


def _no_memory(clip: AudioClip) -> InputError:
    return InputError("there is not enough memory to read its header: free memory", source=clip.name)


def _file_of(item: Any) -> AudioClip | None:
    """The clip of an item, which may be none, if it is one of a file."""
    clip = inputs.clip_of(item) if isinstance(item, (AudioClip, AudioText)) else None
    return clip if clip is not None and clip.path is not None else None
