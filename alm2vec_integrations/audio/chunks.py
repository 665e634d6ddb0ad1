"""Whether WAV and its kin end where their headers say. libsndfile reads what the header counts, and no more."""

from __future__ import annotations

import os
import struct
from collections.abc import Container
from typing import Any, NamedTuple

from ..errors import AudioError
from .views import read_at

_MOST_CHUNKS = 10_000

_MOST_ZEROS = 2**16
"""Bytes behind the last chunk with which a file system or a recorder fills up what it writes in."""


class _Layout(NamedTuple):
    """How a format's chunks are written.

    Attributes:
        begin: of the first chunk.
        head: of a chunk, its name and its length.
        counts_itself: whether that length includes the head.
        multiple: of how many bytes a chunk is padded to.
        samples: name of the chunk of samples.
        open_lengths: what is written where the length was not known; libsndfile then reads to the end.
    """

    begin: int
    head: struct.Struct
    counts_itself: bool
    multiple: int
    samples: bytes
    open_lengths: Container[int]


# What programs that write to a pipe leave in a header whose length they cannot know is near the largest that fits.
_NEAR_THE_LARGEST = range(0x7FFFF000, 2**32)

_LITTLE, _BIG = struct.Struct("<4sI"), struct.Struct(">4sI")
_LAYOUTS = {
    (b"RIFF", b"WAVE"): _Layout(12, _LITTLE, False, 2, b"data", _NEAR_THE_LARGEST),
    (b"RIFX", b"WAVE"): _Layout(12, _BIG, False, 2, b"data", _NEAR_THE_LARGEST),
    (b"RF64", b"WAVE"): _Layout(12, _LITTLE, False, 2, b"data", ()),
    (b"FORM", b"AIFF"): _Layout(12, _BIG, False, 2, b"SSND", (0, 2**32 - 1)),
    (b"FORM", b"AIFC"): _Layout(12, _BIG, False, 2, b"SSND", (0, 2**32 - 1)),
    (b"caff", b"desc"): _Layout(8, struct.Struct(">4sq"), False, 1, b"data", (-1,)),
    (b"riff", b"\xa5\xd6\x28\xdb"): _Layout(40, struct.Struct("<4s12xQ"), True, 8, b"data", ()),
}
_KINDS = {kind for kind, _ in _LAYOUTS}


def check_chunks(file: Any, name: str) -> int:
    """Look at the heads of a file's chunks; of files of other kinds, at nothing.

    Returns:
        Where the samples end, in bytes from the beginning; the file's size where that is not known.

    Raises:
        AudioError: the samples end before the header says; or something follows them that is no chunk of the format and
            more than a few zeros, which is more samples where 32 bits were too few for their length, where the recorder
            died before it was written, and where files were joined.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(24)
    layout = _LAYOUTS.get((head[:4], head[8:12]))
    if layout is not None:
        end, samples, samples_end = _end(file, size, layout, is_long=head[:4] == b"RF64")
    elif head[:4] in (b".snd", b"dns.") and len(head) == 24:
        begin, samples = struct.unpack("<II" if head[:1] == b"d" else ">II", head[4:12])
        end = begin + samples
        if end > size and samples in _NEAR_THE_LARGEST:
            end = size
        samples_end = end
    else:
        end = samples = samples_end = size
    filled_up = samples > 0 and 0 < size - end <= _MOST_ZEROS and not any(read_at(file, end, size - end))
    file.seek(0)
    if end > size:
        raise AudioError(
            f"is cut short: its header promises {samples} bytes of samples, {samples - (end - size)} are there: fetch "
            "or record it again",
            source=name,
        )
    if size - end >= 8 and not filled_up:  # less is too little for a chunk
        raise AudioError(
            f"has {size - end} bytes behind the {samples} bytes of samples that its header counts, and they are no "
            "part of its format: it grew past 4 GiB, or its recorder died, or it was joined of several: split it, or "
            "write it as FLAC with a program that ignores the length (sox --ignore-length, ffmpeg -ignore_length 1)",
            source=name,
        )
    return samples_end


def _end(file: Any, size: int, layout: _Layout, *, is_long: bool) -> tuple[int, int, int]:
    """Where the well-formed chunks end, how many bytes of samples count, and where those end; the size if unknown."""
    place, samples, samples_end, long_count, padding = layout.begin, 0, size, 0, 0
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, place, layout.head.size)
        if padding and not _is_chunk(head, size - place, layout):  # some programs leave it out behind the samples
            unpadded = read_at(file, place - padding, layout.head.size)
            if _is_chunk(unpadded, size - place + padding, layout):
                place, head = place - padding, unpadded
        if len(head) < layout.head.size:
            return size, samples, samples_end
        begin = place + layout.head.size
        name, count = _named_and_counted(head, layout)
        padding = 0
        if is_long and name == b"ds64":  # which has the lengths that 32 bits cannot hold
            long_count = int.from_bytes(read_at(file, begin + 8, 8), "little")
        if name == layout.samples:
            samples = count = long_count if is_long and count == 0xFFFFFFFF else count
            padding = -count % layout.multiple
            if count > size - begin or (count <= 0 and count in layout.open_lengths):
                return (size if count in layout.open_lengths else begin + count), samples, size
            samples_end = begin + max(count, 0)
        elif name in _KINDS or not _is_chunk(head, size - place, layout):
            break
        place = begin + max(count, 0) + -count % layout.multiple
    return min(place, size), samples, samples_end


def _named_and_counted(head: bytes, layout: _Layout) -> tuple[bytes, int]:
    name, count = layout.head.unpack(head)
    return name, count - (layout.head.size if layout.counts_itself else 0)


def _is_chunk(head: bytes, left: int, layout: _Layout) -> bool:
    """Whether `head` is that of a chunk which ends within the `left` bytes from its beginning."""
    if len(head) < layout.head.size:
        return False
    name, count = _named_and_counted(head, layout)
    return all(0x20 <= byte < 0x7F for byte in name) and 0 <= count <= left - layout.head.size
