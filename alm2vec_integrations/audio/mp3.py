"""Whether an MP3 says how long it is, from its bytes: libsndfile takes what the first header counts for all."""

from __future__ import annotations

import os
import struct
from typing import Any

from .views import read_at

_MOST_TAG_BYTES = 2**16
"""After an MP3's last frame: tags are smaller, another recording is larger."""

_MOST_TAGS = 64

# Layer III: kilobits a second by their number in a frame's header, and samples a second of MPEG 1.
_BIT_RATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = 44_100, 48_000, 32_000


def mp3_length_is_known(file: Any) -> bool:
    """Whether an MP3's first frame is a Xing or Info header that counts all of the file's frames.

    Without one, libsndfile guesses from the first frames' bit rate and stops at its guess. One that covers only the
    beginning, as where files were joined, hides the rest.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    start = after_id3(file)
    head = read_at(file, start, 4096)
    file.seek(0)
    place = max(head.find(b"Xing", 0, 512), head.find(b"Info", 0, 512))
    if place < 0 or len(head) < place + 16:
        return False
    flags, frames, length = struct.unpack(">III", head[place + 4 : place + 16])
    if flags & 3 != 3 or frames == 0:
        return False
    place = _after_closing_tags(file, start + length)
    rest = read_at(file, min(place, size), _MOST_TAG_BYTES)
    file.seek(0)
    return size - place <= _MOST_TAG_BYTES and not _holds_frames(rest)


def _after_closing_tags(file: Any, place: int) -> int:
    """Where the tags that begin at `place`, ID3v1 and APE, end."""
    for _ in range(_MOST_TAGS):
        head = read_at(file, place, 32)
        if head[:3] == b"TAG":
            place += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            is_header = head[23] & 0x20  # whose size counts a footer, and not itself
            place += 32 + (struct.unpack("<I", head[12:16])[0] if is_header else 0)
        else:
            break
    return place


def _holds_frames(data: bytes) -> bool:
    """Whether there are two frames, one right after the other. One may be the last, which some do not count."""
    places = [place for place in range(len(data)) if data[place] == 0xFF]
    return any(
        (length := _frame_bytes(data[place : place + 4])) and _frame_bytes(data[place + length : place + length + 4])
        for place in places
    )


def _frame_bytes(head: bytes) -> int:
    """How long the frame of Layer III is that begins with these four bytes; 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return 0
    samples, slower = (144, 1) if version == 3 else (72, 2 if version == 2 else 4)
    return samples * 1000 * _BIT_RATES[3 if version == 3 else 2][bits] // (_RATES[rate] // slower) + (head[2] >> 1 & 1)


def after_id3(file: Any) -> int:
    """Where the ID3v2 tags at the file's beginning end."""
    place = 0
    for _ in range(_MOST_TAGS):
        head = read_at(file, place, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        a, b, c, d = head[6:10]
        place += 10 + (a << 21 | b << 14 | c << 7 | d)
    return place
