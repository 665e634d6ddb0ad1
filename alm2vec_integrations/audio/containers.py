"""Which container a file is, by its first bytes, asked before libsndfile is.

Left to itself libsndfile opens two dozen containers, of most of which it is not known here whether a file is all there.
What it does not know it looks for in a "resource fork", a file named after none in whatever folder is the current one;
and of some damaged files it prints on standard output.
"""

from __future__ import annotations

from typing import Any

from ..errors import AudioError
from .mp3 import after_id3
from .views import read_at

_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"

# Containers that are not taken, though libsndfile reads them: what they begin with, at which byte, and their names.
_NOT_TAKEN = (
    (0, b"NIST_1A", "NIST SPHERE"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (0, b"\0\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0", "a MATLAB 4 file"),
    (0, b"\0\0\x03\xe8\0\0\0\1\0\0\0\1\0\0\0\0", "a MATLAB 4 file"),
    (0, b"\xf0\x7e", "a MIDI Sample Dump (SDS)"),
    (0, b"Creative Voice File", "a Creative Voice File (VOC)"),
    (8, b"8SVX", "Amiga SVX"),
    (8, b"16SV", "Amiga SVX"),
    (0, b"PVF1", "Portable Voice Format (PVF)"),
    (0, b"ALawSoundFile**", "Psion WVE"),
    (0, b"2BIT", "Audio Visual Research (AVR)"),
    (0, b"\x01\x04", "an Akai MPC 2000 sample"),
    (0, b" paf", "Ensoniq PARIS (PAF)"),
    (0, b"fap ", "Ensoniq PARIS (PAF)"),
    *((0, b"d\xa3" + bytes([number, 0]), "IRCAM") for number in (1, 2, 3, 4)),
    *((0, bytes([0, number]) + b"\xa3d", "IRCAM") for number in (1, 2, 3, 4)),
    (0, b"Extended Instrument: ", "a FastTracker 2 instrument (XI)"),
)


def container_of(file: Any, name: str) -> tuple[str, ...]:
    """What soundfile calls the container, where it is one that libsndfile may be asked for; empty if it is none.

    Args:
        file: it is left at its beginning.
        name: for messages.

    Raises:
        AudioError: it is one that libsndfile would read, and of which it is not known whether all of it is there.
    """
    place = after_id3(file)
    head = read_at(file, place, 32)
    file.seek(0)
    # What follows a tag is read as if it was not there in these two alone.
    known = _behind_a_tag(head) or (() if place else _at_the_beginning(head))
    if known:
        return known
    for begin, mark, kind in _NOT_TAKEN:
        if head[begin : begin + len(mark)] == mark:
            raise AudioError(
                f"is {kind}, of which a part that is missing would not be noticed: convert it to WAV or FLAC first",
                source=name,
            )
    return ()


def _behind_a_tag(head: bytes) -> tuple[str, ...]:
    if head[:4] == b"fLaC":
        return ("FLAC",)
    # Layer 0 is raw AAC.
    return ("MP3",) if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 else ()


def _at_the_beginning(head: bytes) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        names = ("RF64",) if head[:4] == b"RF64" else ("WAV", "WAVEX")
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        names = ("AIFF",)
    elif head[:4] in (b".snd", b"dns."):
        names = ("AU",)
    elif head[:4] == b"caff" and head[8:12] == b"desc":
        names = ("CAF",)
    elif head[:16] == _W64:
        names = ("W64",)
    elif head[:4] == b"OggS":
        names = ("OGG",)
    return names
