"""Whether MP3 and Ogg files say how long they are, from their bytes: libsndfile takes their first part for all."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

_MOST_FRAME_BYTES = 4096
"""More than an MP3's frame has."""

_MOST_TAG_BYTES = 2**16
"""After an MP3's last frame: tags are smaller, another recording is larger."""

_OGG_HEADER_BYTES = 27
_CONTINUES, _BEGINS, _ENDS = 1, 2, 4  # bits of an Ogg page's header, RFC 3533


def mp3_length_is_known(file: Any) -> bool:
    """Whether an MP3's first frame is a Xing or Info header that counts all of the file's frames.

    Without one, libsndfile guesses from the first frames' bit rate and stops at its guess. One that covers only the
    beginning, as where files were joined, hides the rest.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    start = _after_id3(file)
    file.seek(start)
    head = file.read(4096)
    file.seek(0)
    place = max(head.find(b"Xing", 0, 512), head.find(b"Info", 0, 512))
    if place < 0 or len(head) < place + 16:
        return False
    flags, frames, length = struct.unpack(">III", head[place + 4 : place + 16])
    if flags & 3 != 3 or frames == 0:
        return False
    place = _after_closing_tags(file, start + length)
    file.seek(place)
    after = file.read(3)
    file.seek(0)
    # More than the last frame, which some encoders do not count, and no tag that belongs to the end.
    begins_anew = after == b"ID3" or (len(after) == 3 and after[0] == 0xFF and after[1] & 0xE0 == 0xE0)
    left = size - place
    return bool(left <= _MOST_TAG_BYTES and not (begins_anew and left > _MOST_FRAME_BYTES))


def _after_closing_tags(file: Any, place: int) -> int:
    """Where the tags that begin at `place`, ID3v1 and APE, end."""
    while True:
        file.seek(place)
        head = file.read(32)
        if head[:3] == b"TAG":
            place += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            is_header = head[23] & 0x20  # whose size counts a footer, and not itself
            place += 32 + (struct.unpack("<I", head[12:16])[0] if is_header else 0)
        else:
            return place


def _after_id3(file: Any) -> int:
    """Where the ID3v2 tags end."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return place
        a, b, c, d = head[6:10]
        place += 10 + (a << 21 | b << 14 | c << 7 | d)


@dataclass(frozen=True)
class OggPages:
    """What the headers of all pages of an Ogg file say.

    Attributes:
        joined: whether a stream begins after the data of another.
        ends: whether the last page is there in full and ends its stream.
    """

    joined: bool
    ends: bool


def ogg_pages(file: Any) -> OggPages | None:
    """The file's pages, one header after the other; None if it does not begin with one."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    place, page_at, data_seen, joined, ends = 0, 0, False, False, False
    while place < size:
        file.seek(place)
        page = file.read(_OGG_HEADER_BYTES + 255)
        if page[:4] != b"OggS":
            if place == 0:
                file.seek(0)
                return None
            # What was cut short says that it is longer than it is.
            place = page_at = _next_page(file, page_at + 4)
            continue
        lengths = page[_OGG_HEADER_BYTES:][: page[26]] if len(page) >= _OGG_HEADER_BYTES else b""
        flags = page[5] if lengths else 0
        begins = bool(flags & _BEGINS)
        page_at = place
        joined |= begins and data_seen
        data_seen |= not begins
        place += max(_OGG_HEADER_BYTES + len(lengths) + sum(lengths), 4)
        ends = bool(flags & _ENDS) and place <= size
    file.seek(0)
    return OggPages(joined, ends)


def _next_page(file: Any, place: int) -> int:
    """Where the next page begins after damage or after what does not belong; the file's end if none does."""
    while True:
        file.seek(place)
        block = file.read(2**16)
        found: int = block.find(b"OggS")
        if found >= 0:
            return place + found
        if len(block) < 4:
            return place + len(block)
        place += len(block) - 3
