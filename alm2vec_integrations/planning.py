"""How a mixed list becomes micro-batches: one kind and instruction each, near-equal lengths, bounded work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .inputs import Item, Kind


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


def plan(entries: Iterable[Entry], *, max_items: int, max_seconds: float) -> list[MicroBatch]:
    """Cut `entries` into micro-batches.

    A micro-batch holds at most `max_items` entries and, counting each clip as long as the longest beside it, at most
    `max_seconds` of audio; a single clip longer than that goes alone.
    """
    groups: dict[tuple[Kind, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.kind, entry.instruction), []).append(entry)
    batches = []
    for (kind, instruction), group in groups.items():
        batch: list[Entry] = []
        for entry in sorted(group, key=lambda e: (e.seconds, e.characters)):
            # Sorted by length, so `entry` is the longest so far.
            if batch and (len(batch) == max_items or entry.seconds * (len(batch) + 1) > max_seconds):
                batches.append(MicroBatch(kind, instruction, tuple(batch)))
                batch = []
            batch.append(entry)
        batches.append(MicroBatch(kind, instruction, tuple(batch)))
    return batches
