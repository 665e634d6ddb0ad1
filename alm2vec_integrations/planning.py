"""How a mixed list becomes micro-batches: one kind and instruction each, near-equal lengths, bounded work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .inputs import Item, Kind, text_of


@dataclass(frozen=True)
class Entry:
    """One item as the planner sees it.

    Attributes:
        position: where its vector belongs in the result.
        item: what to embed; references are resolved already.
        kind: of the item.
        instruction: resolved, never empty.
        seconds: of audio; 0 for text.
        characters: of text; 0 for audio alone.
    """

    position: int
    item: Item
    kind: Kind
    instruction: str
    seconds: float
    characters: int


@dataclass(frozen=True)
class MicroBatch:
    """Entries that go through the model in one call."""

    kind: Kind
    instruction: str
    entries: tuple[Entry, ...]


DEFAULT_MAX_ITEMS = 32
DEFAULT_MAX_SECONDS = 480.0
"""Sixteen clips of the 30 s that the model was trained on; more is hardly faster, and keeps others waiting."""

Batching = Literal["similar", "equal", "single"]


@dataclass(frozen=True)
class Limits:
    """What may go into one micro-batch.

    Attributes:
        max_items: entries.
        max_seconds: of audio, each clip counted as long as the longest beside it; a longer clip goes alone.
        batching: "similar" lengths side by side; "equal" lengths only, with the same text, since how many tokens
            another text has is not known here; or every entry "single". For checkpoints whose vectors depend on what
            else is in the batch.
    """

    max_items: int
    max_seconds: float
    batching: Batching = "similar"

    def admit(self, entry: Entry, batch: list[Entry]) -> bool:
        """Whether `entry`, at least as long as the others, may join `batch`."""
        if self.batching == "single" or len(batch) == self.max_items:
            return False
        if self.batching == "equal" and (entry.seconds, text_of(entry.item)) != (
            batch[0].seconds,
            text_of(batch[0].item),
        ):
            return False
        return entry.seconds * (len(batch) + 1) <= self.max_seconds


def plan(entries: Iterable[Entry], limits: Limits) -> list[MicroBatch]:
    """Cut `entries` into micro-batches within `limits`, one kind and instruction each."""
    groups: dict[tuple[Kind, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.kind, entry.instruction), []).append(entry)
    batches = []
    for (kind, instruction), group in groups.items():
        batch: list[Entry] = []
        for entry in sorted(group, key=lambda e: (e.seconds, e.characters, text_of(e.item) or "")):
            if batch and not limits.admit(entry, batch):
                batches.append(MicroBatch(kind, instruction, tuple(batch)))
                batch = []
            batch.append(entry)
        batches.append(MicroBatch(kind, instruction, tuple(batch)))
    return batches
