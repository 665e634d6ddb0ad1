"""What the boxes of an MP4 or QuickTime file say of its length, before FFmpeg makes an index of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

from ..errors import AudioError
from .views import read_at

_OF_THIS_KIND = {b"ftyp", b"styp", b"moov", b"moof", b"mdat"}
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
_MOST_DEPTH = 5


def mp4_has_length(file: Any, name: str) -> bool | None:
    """Whether the header speaks for all samples, as it does not where the file is a row of fragments.

    None for a file of another kind.

    Args:
        file: it is left at its beginning.
        name: for messages.

    Raises:
        AudioError: the file ends before its boxes do, holds several recordings, or its index counts more samples than
            it has bytes; FFmpeg would make room for each.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    known, films, fragments, claimed = False, 0, 0, 0
    for kind, begin, end in _boxes(file, 0, size):
        known = known or kind in _OF_THIS_KIND
        if end > size and known:
            raise AudioError(
                f"is cut short: its header promises {end} bytes, {size} are there: fetch or record it again",
                source=name,
            )
        films += kind == b"moov"
        fragments += kind in (b"mvex", b"moof")
        if kind in (b"stsz", b"stz2", b"trun"):
            claimed += _claimed_bytes(kind, read_at(file, begin, 12))
    file.seek(0)
    if claimed > size:
        raise AudioError(
            f"is damaged (its index counts {claimed} bytes of samples, and it has {size} in all): fetch or record it "
            "again",
            source=name,
        )
    if films > 1:
        raise AudioError(
            "holds several recordings, of which only the first would be heard: split it, or convert it to WAV or FLAC "
            "first",
            source=name,
        )
    return not fragments if known else None


def _claimed_bytes(kind: bytes, head: bytes) -> int:
    """The least that the samples take which the box counts: each has a byte, or as many as are said for all."""
    each, count = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    if kind == b"trun":
        return each  # here the second number is the count
    return count * each if kind == b"stsz" and each else count


def _boxes(file: Any, place: int, stop: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte of the contents, and end of every box and those inside it, as far as they make sense."""
    while place + 8 <= stop:
        head = read_at(file, place, 16)
        length, kind = struct.unpack(">I4s", head[:8])
        begin = place + 8
        if length == 1 and len(head) == 16:
            length, begin = int.from_bytes(head[8:]), place + 16
        if length == 0:
            end = stop
        elif length < begin - place:
            return
        else:
            end = place + length
        yield kind, begin, end
        if kind in _PARENTS and depth < _MOST_DEPTH:
            yield from _boxes(file, begin, min(end, stop), depth + 1)
        place = end
