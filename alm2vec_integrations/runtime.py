"""One call's work: check the items, plan micro-batches, run each through the model, put the rows in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import inputs
from .audio.access import AccessPolicy
from .audio.decoding import decode, measure, write_wav
from .audio.workspace import workspace
from .checkpoint.handles import ModelHandle
from .checkpoint.output import as_rows
from .errors import InputError, ModelContractError
from .instructions import Task
from .planning import Entry, Limits, MicroBatch, plan

# Headers read in one step of a job: some ten milliseconds of work.
_PLANNED_AT_ONCE = 128


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
    ) -> None:
        self._handle = handle
        self._items = items
        self._instructions = instructions
        self._task: Task = task
        self._policy = policy
        self._limits = limits
        self._normalize = normalize
        self._keep_going = keep_going
        self._rows: dict[int, npt.NDArray[np.float32]] = {}
        self._failures: dict[int, Failure] = {}
        self._embeddings: npt.NDArray[np.float32] | None = None

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

        Nothing is held between steps, so that callers who take a step each in turn all make progress.
        """
        settled = 0
        entries: list[Entry] = []
        for start in range(0, len(self._items), _PLANNED_AT_ONCE):
            if start:
                yield len(self._failures) - settled
                settled = len(self._failures)
            entries += self._check(range(start, min(start + _PLANNED_AT_ONCE, len(self._items))))
        batches = plan(entries, self._limits)
        for number, batch in enumerate(batches, start=1):
            self._run(batch)
            if number < len(batches):
                yield len(self._rows) + len(self._failures) - settled
                settled = len(self._rows) + len(self._failures)
        self._finish()
        yield len(self._items) - settled

    def _check(self, positions: range) -> list[Entry]:
        """The entries of the items that are what they should be, reading audio headers only."""
        attempts = (self._attempt(p, partial(self._entry, p, self._items[p])) for p in positions)
        return [entry for entry in attempts if entry is not None]

    def _run(self, batch: MicroBatch) -> None:
        """Decode the batch's audio, encode it, and keep the rows."""
        loaded = self._handle.loaded()
        with nullcontext() if batch.kind == "text" else workspace.batch_folder() as folder:
            paths: dict[int, str] = {}
            if folder is not None:
                for entry in batch.entries:
                    path = str(folder / f"{entry.position}.wav")
                    if self._attempt(entry.position, partial(self._hand_over, entry, path)):
                        paths[entry.position] = path
            entries = [e for e in batch.entries if folder is None or e.position in paths]
            if not entries:
                return
            rows = self._forward(loaded, batch, entries, list(paths.values()))
        for entry, row in zip(entries, rows, strict=True):
            self._rows[entry.position] = row

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

    def _attempt(self, position: int, work: Callable[[], Any]) -> Any:
        """What `work` returns; its InputError names the item, and is noted instead of raised when going on."""
        try:
            return work()
        except InputError as error:
            if not self._keep_going:
                raise error.at(position) from error
            source = error.source or inputs.name_of(self._items[position])
            self._failures[position] = Failure(position, source, error.reason)
            return None

    def _entry(self, position: int, unchecked: Any) -> Entry:
        item = inputs.check_item(unchecked, position)
        clip = inputs.clip_of(item)
        seconds = 0.0 if clip is None else measure(clip, self._policy).seconds
        return Entry(
            position=position,
            item=item,
            kind=inputs.kind_of(item),
            instruction=self._instructions[position],
            seconds=seconds,
            characters=len(inputs.text_of(item) or ""),
        )

    def _hand_over(self, entry: Entry, path: str) -> bool:
        clip = inputs.clip_of(entry.item)
        assert clip is not None  # noqa: S101 - entries with audio only
        write_wav(path, decode(clip, self._policy))
        return True

    def _forward(
        self, loaded: Any, batch: MicroBatch, entries: list[Entry], paths: list[str]
    ) -> npt.NDArray[np.float32]:
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
            with self._handle.turn, torch.no_grad():
                return as_rows(loaded.model.encode(**keywords), rows=len(entries), dim=loaded.dim, model=name)
        except StopIteration as error:
            # Python cannot carry this one out of a generator or a future.
            raise ModelContractError(f"{name}: encode raised StopIteration") from error
        except Exception as error:
            error.add_note(
                f"{name} was encoding {len(entries)} item(s) of kind {batch.kind}: "
                + ", ".join(f"item {e.position} ({inputs.name_of(e.item)})" for e in entries[:8])
                + (", …" if len(entries) > 8 else "")
            )
            raise


def _normalized(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's usual name

    normalized: npt.NDArray[np.float32] = F.normalize(torch.from_numpy(rows), dim=-1).numpy()
    return normalized
