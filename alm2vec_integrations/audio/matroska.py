"""What the beginning of a Matroska or WebM file says of its length (RFC 8794, RFC 9559)."""

from __future__ import annotations

import os
from typing import Any

from ..errors import AudioError
from .views import read_at

_EBML, _SEGMENT, _INFO, _DURATION = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x4489
_CLUSTER, _MOST_ELEMENTS, _MOST_INFO_BYTES = 0x1F43B675, 1000, 2**16


def matroska_has_length(file: Any, name: str) -> bool:
    """Whether the header holds the length, which live recordings leave out; FFmpeg then guesses one from a bit rate.

    Args:
        file: a Matroska file; it is left at its beginning.
        name: for messages.

    Raises:
        AudioError: the file ends before its header says, or goes on after it.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    try:
        return _has_length(file, size, name)
    finally:
        file.seek(0)


def _has_length(file: Any, size: int, name: str) -> bool:
    place = 0
    for _ in range(_MOST_ELEMENTS):
        found, begin, length = _element(file, place)
        if found == _SEGMENT:
            if length is not None and begin + length != size:
                _refuse(begin + length, size, name)
            place = begin
        elif found == _INFO and length is not None:
            return _holds(file, begin, min(length, _MOST_INFO_BYTES), _DURATION)
        elif found in (0, _CLUSTER) or length is None:
            return False
        else:
            place = begin + length
    return False


def _refuse(promised: int, size: int, name: str) -> None:
    if promised > size:
        raise AudioError(
            f"is cut short: its header promises {promised} bytes, {size} are there: fetch or record it again",
            source=name,
        )
    raise AudioError(
        f"goes on for {size - promised} bytes after its end, as where files were joined: split it, or convert it to "
        "WAV or FLAC first",
        source=name,
    )


def _holds(file: Any, begin: int, length: int, wanted: int) -> bool:
    place = begin
    while place < begin + length:
        found, inner, size = _element(file, place)
        if found == wanted:
            return True
        if found == 0 or size is None:
            return False
        place = inner + size
    return False


def _element(file: Any, place: int) -> tuple[int, int, int | None]:
    """Number, first byte and length of the element at `place`; number 0 if there is none, None for "to be seen"."""
    head = read_at(file, place, 12)
    width = _width(head, 0)
    number = int.from_bytes(head[:width])
    more = _width(head, width)
    if not 0 < width <= 4 or not more or len(head) < width + more:
        return 0, place, None
    most = (1 << 7 * more) - 1
    length = int.from_bytes(head[width : width + more]) & most
    return number, place + width + more, None if length == most else length


def _width(head: bytes, place: int) -> int:
    """Bytes of the number that begins at `place`; 0 if none does."""
    first = head[place] if place < len(head) else 0
    return 9 - first.bit_length() if first else 0
