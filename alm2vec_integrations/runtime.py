"""One call's work: check the items, plan micro-batches, run each through the model, put the rows in order."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import inputs
from .audio.access import AccessPolicy
from .audio.limits import MIN_SECONDS, TRAINED_SECONDS
from .audio_loader import AudioLoader
from .checkpoint.handles import DECODERS, ModelHandle
from .checkpoint.output import as_rows
from .clips import AudioClip
from .errors import ALM2VecWarning, InputError, ModelContractError
from .handover import Handover
from .inputs import Kind
from .instructions import Task
from .memory import is_out_of_memory, release_cached
from .planning import Entry, Limits, MicroBatch, plan

logger = logging.getLogger(__name__)

# Headers read in one step of a job, so many times as there are processes if there are some: ten milliseconds or so.
_PLANNED_AT_ONCE = 128

# Micro-batches of a job that may be in the making before the model takes them: more would keep other jobs' audio
# waiting. Where processes decode, more may be ready: threads would take the time for that from the model.
_BATCHES_BEGUN = 2
_BATCHES_READY = 8

_CUT = "cut long recordings with alm2vec_integrations.segment"


@dataclass(frozen=True)
class Failure:
    """An item that could not be embedded.

    Attributes:
        index: its position in the list it came in.
        source: what it was made from, as a short text.
        reason: what was wrong.
    """

    index: int
    source: str
    reason: str


@dataclass(frozen=True)
class EncodeResult:
    """What `encode_partial` returns.

    Attributes:
        embeddings: float32 [M, dim], the M items that could be embedded, in their order.
        indices: int64 [M], where they stood in the list.
        failures: the others, in their order.
    """

    embeddings: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    failures: list[Failure]


class Job:
    """One call of `encode`, in steps that may run in different threads, one after the other.

    Args:
        handle: the model.
        items: unchecked.
        instructions: one for each item, resolved.
        task: for the model.
        policy: which references may be opened.
        limits: of a micro-batch.
        normalize: whether rows leave with length 1.
        keep_going: note failures of single items instead of raising the first.
        first: position of the first item, for lists that are part of a longer one.
    """

    def __init__(
        self,
        handle: ModelHandle,
        items: Sequence[Any],
        instructions: Sequence[str],
        *,
        task: Task,
        policy: AccessPolicy,
        limits: Limits,
        normalize: bool,
        keep_going: bool = False,
        first: int = 0,
    ) -> None:
        self._handle = handle
        self._items = items
        self._first = first
        self._instructions = instructions
        self._task: Task = task
        self._audio = AudioLoader(handle, items, policy)
        self._limits = limits
        self._normalize = normalize
        self._keep_going = keep_going
        self._rows: dict[int, npt.NDArray[np.float32]] = {}
        self._failures: dict[int, Failure] = {}
        self._embeddings: npt.NDArray[np.float32] | None = None
        self._checked = False
        self._batches: deque[MicroBatch] = deque()
        self._handovers: deque[Handover] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def has_audio(self) -> bool:
        """Whether any item is more than text."""
        return not all(isinstance(item, str) for item in self._items)

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return self._embeddings is not None

    def steps(self) -> Iterator[int]:
        """Do the work in steps of one micro-batch at most; each yields how many items it settled.

        Nothing is held between steps, so that callers who take a step each in turn all make progress; audio for the
        next steps is decoded meanwhile.
        """
        settled = 0
        for _ in self._checks():
            yield len(self._failures) - settled
            settled = len(self._failures)
        try:
            while handover := self._next():
                self._encode(handover)
                if self._batches or self._handovers:
                    yield len(self._rows) + len(self._failures) - settled
                    settled = len(self._rows) + len(self._failures)
        except GeneratorExit:
            self.close(wait=False)  # whoever lets go of the steps does not wait for them
            raise
        except BaseException:
            self.close()
            raise
        self._finish()
        yield len(self._items) - settled

    def prepare(self) -> None:
        """Read the headers and begin to decode, ahead of `steps`."""
        for _ in self._checks(in_thread=True):
            pass
        self._look_ahead()

    def prepare_in_background(self) -> Future[None]:
        """`prepare` in a thread."""
        return self._handle.executor("decoding").submit(self.prepare)

    def close(self, *, wait: bool = True) -> None:
        """Stop what is decoded ahead and remove it."""
        while self._handovers:
            self._handovers.popleft().close(wait=wait)

    def _checks(self, *, in_thread: bool = False) -> Iterator[None]:
        """Plan the items that are what they should be, reading audio headers only, some at a time.

        Args:
            in_thread: this is one of the threads that decode.
        """
        if self._checked:
            return
        entries: list[Entry] = []
        at_once = _PLANNED_AT_ONCE * (DECODERS if self._audio.apart else 1)
        for start in range(0, len(self._items), at_once):
            if start:
                yield
            positions = range(start, min(start + at_once, len(self._items)))
            known = self._audio.measured_apart(positions, in_thread=in_thread)
            attempts = (self._attempt(p, partial(self._entry, p, self._items[p], known.get(p))) for p in positions)
            entries += [entry for entry in attempts if entry is not None]
        self._batches.extend(plan(entries, self._limits))
        self._checked = True

    def _next(self) -> Handover | None:
        """The next micro-batch with its audio; those after the first are decoded while others are in the model."""
        if not self._handovers:
            if not self._batches:
                return None
            self._handovers.append(self._audio.load(self._batches.popleft()))
            self._look_ahead()
        return self._handovers.popleft()

    def _look_ahead(self) -> None:
        most = _BATCHES_READY if self._audio.apart else _BATCHES_BEGUN
        begun = sum(not handover.done for handover in self._handovers)
        while self._batches and begun < _BATCHES_BEGUN and len(self._handovers) < most:
            more = self._audio.load_ahead(self._batches[0])
            if more is None:
                return
            self._batches.popleft()
            self._handovers.append(more)
            begun += 1

    def _encode(self, handover: Handover) -> None:
        """Wait for the batch's audio, encode it, and keep the rows."""
        try:
            loaded, batch = self._handle.loaded(), handover.batch
            if self._audio.apart:
                self._look_ahead()  # which does not take the interpreter from what follows
            paths: dict[int, str | None] = {}
            for entry in batch.entries:
                self._attempt(entry.position, partial(self._take, handover, entry, paths))
            entries = [entry for entry in batch.entries if entry.position in paths]
            waiting = deque(self._handle.memory.pieces(batch.kind, entries) if entries else [])
            while waiting:
                piece = waiting.popleft()
                rows = self._forward(loaded, batch, piece, [paths[entry.position] for entry in piece])
                if rows is None:
                    waiting.extendleft(reversed(self._retry(batch.kind, piece)))
                else:
                    self._rows.update({e.position: row for e, row in zip(piece, rows, strict=True)})
        finally:
            handover.close()

    def _take(self, handover: Handover, entry: Entry, paths: dict[int, str | None]) -> None:
        try:
            paths[entry.position] = handover.path(entry)
        except MemoryError as error:
            raise InputError(
                f"there is not enough memory to decode it ({entry.seconds:.0f} s of audio): {_CUT}, or free memory",
                source=inputs.name_of(entry.item),
            ) from error

    def _retry(self, kind: Kind, failed: Sequence[Entry]) -> list[Sequence[Entry]]:
        """Smaller pieces of what took too much memory; an entry that did so alone fails alone."""
        release_cached()
        name, device = self._handle.configuration.model, self._handle.configuration.device
        longest = max(entry.seconds for entry in failed)
        if len(failed) > 1:
            bound = self._handle.memory.lower(kind, failed)
            unit = "s of audio" if longest else "characters"
            logger.warning(
                "%s: %s ran out of memory with %d items; trying again in halves, and from now on with at most %.1f %s "
                "at once",
                *(name, device, len(failed), bound, unit),
            )
            return self._handle.memory.pieces(kind, failed)
        logger.warning("%s: %s ran out of memory with item %d alone", name, device, self._first + failed[0].position)
        much = f"{longest:.0f} s of audio" if longest else f"{failed[0].characters} characters"
        reason = (
            f"{device} has not enough memory for it alone ({much}): {_CUT if longest else 'shorten it'}, or free memory"
        )
        self._attempt(failed[0].position, partial(_refuse, reason, inputs.name_of(failed[0].item)))
        return []

    def _finish(self) -> None:
        rows = [self._rows[position] for position in sorted(self._rows)]
        if not rows:
            self._embeddings = np.empty((0, self._handle.loaded().dim), dtype=np.float32)
        else:
            self._embeddings = _normalized(np.stack(rows)) if self._normalize else np.stack(rows)

    def embeddings(self) -> npt.NDArray[np.float32]:
        """The rows in the items' order, float32 [N, dim], once the steps are done."""
        assert self._embeddings is not None, "steps() has not run to its end"  # noqa: S101
        return self._embeddings

    def result(self) -> EncodeResult:
        """The rows of the items that succeeded, and the failures."""
        failures = [self._failures[position] for position in sorted(self._failures)]
        return EncodeResult(self.embeddings(), np.array(sorted(self._rows), dtype=np.int64), failures)

    def in_order(self) -> Iterator[tuple[int, npt.NDArray[np.float32] | Failure]]:
        """Every item's vector or failure, by its position."""
        vectors = iter(self.embeddings())
        for position in range(len(self)):
            failure = self._failures.get(position)
            yield self._first + position, next(vectors) if failure is None else failure

    def _attempt(self, position: int, work: Callable[[], Any]) -> Any:
        """What `work` returns; its InputError names the item, and is noted instead of raised when going on."""
        try:
            return work()
        except InputError as error:
            if not self._keep_going:
                raise error.at(self._first + position) from error
            source = error.source or inputs.name_of(self._items[position])
            self._failures[position] = Failure(self._first + position, source, error.reason)
            return None

    def _entry(self, position: int, unchecked: Any, known: float | InputError | None) -> Entry:
        item = inputs.check_item(unchecked, self._first + position)
        clip = inputs.clip_of(item)
        if isinstance(known, InputError):
            raise known
        seconds = 0.0 if clip is None else self._audio.measure(clip) if known is None else known
        if clip is not None and seconds > TRAINED_SECONDS:
            self._remark_on(clip, seconds)
        return Entry(
            position=position,
            item=item,
            kind=inputs.kind_of(item),
            instruction=self._instructions[position],
            seconds=max(seconds, MIN_SECONDS) if clip is not None else 0.0,  # as it reaches the model
            characters=len(inputs.text_of(item) or ""),
        )

    def _remark_on(self, clip: AudioClip, seconds: float) -> None:
        """Say once for each model that a clip is longer than those it was trained on."""
        if not self._handle.warned_of_length:
            self._handle.warned_of_length = True
            warnings.warn(
                f"{clip.name} lasts {seconds:.0f} s and is embedded whole, but the model was trained on clips of up to "
                f"{TRAINED_SECONDS} s: {_CUT} (said once)",
                ALM2VecWarning,
                stacklevel=2,
            )

    def _forward(
        self, loaded: Any, batch: MicroBatch, entries: Sequence[Entry], paths: list[str | None]
    ) -> npt.NDArray[np.float32] | None:
        """The rows, or None if memory ran out."""
        import torch

        # The card's keywords, explicitly, and no other. The card leaves `audio` out where there is none; what None
        # would mean it does not say, so the side that an item lacks is left out and never passed as None.
        keywords: dict[str, Any] = {
            "task": self._task,
            "instruction": batch.instruction,
            "normalize": self._normalize,
            "device": loaded.device,
        }
        if batch.kind != "audio":
            keywords["text"] = [inputs.text_of(entry.item) for entry in entries]
        if batch.kind != "text":
            keywords["audio"] = paths
        name = self._handle.configuration.model
        try:
            # A caller's autocast is meant for the caller's own model.
            as_loaded = torch.autocast(torch.device(loaded.device).type, enabled=False)
            with self._handle.turn, torch.no_grad(), as_loaded:
                found = loaded.model.encode(**keywords)
                # A GPU has its work now: threads that decode take the interpreter while this one waits for it, rather
                # than while it gives out that work.
                self._look_ahead()
                return as_rows(found, rows=len(entries), dim=loaded.dim, model=name)
        except StopIteration as error:
            # Python cannot carry this one out of a generator or a future.
            raise ModelContractError(f"{name}: encode raised StopIteration") from error
        except Exception as error:
            if is_out_of_memory(error):
                return None  # and with the error goes what its frames hold
            error.add_note(
                f"{name} was encoding {len(entries)} item(s) of kind {batch.kind}: "
                + ", ".join(f"item {self._first + e.position} ({inputs.name_of(e.item)})" for e in entries[:8])
                + (", …" if len(entries) > 8 else "")
            )
            raise


def _refuse(reason: str, source: str) -> None:
    raise InputError(reason, source=source)


def _normalized(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's usual name

    normalized: npt.NDArray[np.float32] = F.normalize(torch.from_numpy(rows), dim=-1).numpy()
    return normalized
