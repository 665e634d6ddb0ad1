"""How many samples a FLAC file holds (RFC 9639): by its header, and by the numbers of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import AudioError
from .mp3 import after_id3
from .views import read_at

_SYNC = b"\xff\xf8", b"\xff\xf9"  # frames of one length, numbered; of several, with the number of their first sample
_MOST_HEADER_BYTES = 16
_LAST_BLOCK, _STREAMINFO_BYTES, _MOST_BLOCKS = 0x80, 34, 1000


@dataclass(frozen=True)
class _Stream:
    begin: int  # of the first frame
    block: int
    most_bytes: int  # of a frame
    total: int


@dataclass(frozen=True)
class _Frame:
    place: int
    first: int  # sample
    stop: int


def flac_frames(file: Any, name: str) -> int | None:
    """Samples of each channel; None if the file is not FLAC.

    Reads the header, both ends, and a few places between. The numbers of the frames rise from one end to the other, and
    to what the header counts, unless the file was cut or several were joined, of which the first alone would be heard.

    Raises:
        AudioError: they do not.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    stream = _stream(file)
    if stream is None:
        return None
    last = None
    for begin in _places(stream.begin, size, 3 * stream.most_bytes):
        found = list(_frames(file, stream, begin, begin + 3 * stream.most_bytes))
        for frame in found:
            if last is not None and frame.place > last.place and frame.first <= last.first:
                found = []
                break
            last = frame
        if not found:
            raise AudioError(
                "is several FLAC files joined, or damaged (the numbers of its frames do not rise to its end): split "
                "it, fetch it again, or convert it to WAV first",
                source=name,
            )
    file.seek(0)
    if last is None:
        return stream.total
    if stream.total not in (0, last.stop):
        raise AudioError(
            f"is cut short: its header promises {stream.total} frames, {last.stop} are there: fetch or record it again",
            source=name,
        )
    return last.stop


def _places(begin: int, end: int, window: int) -> list[int]:
    """Where to look: at both ends, half way, and ever closer to the ends, where one of several files may be short."""
    if begin >= end:
        return []
    places, part = {begin, max(end - window, begin)}, (end - begin) // 2
    while part > window:
        places |= {begin + part, end - part}
        part //= 2
    return sorted(places)


def _stream(file: Any) -> _Stream | None:
    place = after_id3(file)
    head = read_at(file, place, 8 + _STREAMINFO_BYTES)
    if head[:4] != b"fLaC" or len(head) < 8 + _STREAMINFO_BYTES or head[4] & ~_LAST_BLOCK:
        return None
    info = head[8:]
    block = int.from_bytes(info[2:4])
    channels = (info[12] >> 1 & 7) + 1
    bits = ((info[12] & 1) << 4 | info[13] >> 4) + 1
    place += 4
    for _ in range(_MOST_BLOCKS):
        head = read_at(file, place, 4)
        place += 4 + int.from_bytes(head[1:])
        if len(head) < 4 or head[0] & _LAST_BLOCK:
            break
    # As long as if nothing was compressed; the difference of two channels has a bit more.
    most = block * channels * (bits + 1) // 8 + 256
    return _Stream(place, block, most, (info[13] & 15) << 32 | int.from_bytes(info[14:18]))


def _frames(file: Any, stream: _Stream, begin: int, end: int) -> Iterator[_Frame]:
    """The frames that begin in a part of the file, but for its first: what follows another is none by accident."""
    data = read_at(file, begin, end - begin)
    stops = {0} if begin == stream.begin else set()
    place = data.find(b"\xff")
    while place >= 0:
        if data[place : place + 2] in _SYNC:
            frame = _frame(data[place : place + _MOST_HEADER_BYTES], begin + place, stream.block)
            if frame is not None:
                if frame.first in stops:
                    yield frame
                stops.add(frame.stop)
        place = data.find(b"\xff", place + 1)


def _frame(data: bytes, place: int, block: int) -> _Frame | None:
    if len(data) < 6 or data[2] < 0x10 or data[2] & 15 == 15 or data[3] >= 0xB0 or data[3] & 1:
        return None
    width = 8 - (data[4] ^ 0xFF).bit_length()  # ones before the first zero, as in UTF-8
    if width == 1 or width > 7:
        return None
    number = data[4] if not width else data[4] & (0x7F >> width)
    at = 5
    for byte in data[5 : 4 + width]:
        if byte & 0xC0 != 0x80:
            return None
        number, at = number << 6 | byte & 0x3F, at + 1
    code = data[2] >> 4
    if code in (6, 7):
        length, at = int.from_bytes(data[at : at + code - 5]) + 1, at + code - 5
    else:
        length = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    at += {12: 1, 13: 2, 14: 2}.get(data[2] & 15, 0)
    if at >= len(data) or _crc8(data[:at]) != data[at]:
        return None
    first = number if data[1] & 1 else number * block
    return _Frame(place, first, first + length)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _table() -> list[int]:
    values = list(range(256))
    for _ in range(8):
        values = [(value << 1 ^ 7) & 0xFF if value & 0x80 else value << 1 for value in values]
    return values


_CRC8 = _table()
