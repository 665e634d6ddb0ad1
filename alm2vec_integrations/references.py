"""The form of a reference, `audio:<uri>#t=<start>,<end>&v=<digest>`: a clip as a string."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import InputError

SCHEME = "audio:"
DIGEST = re.compile(r"[0-9a-f]{16}")
_TIMES = r"t=(?=[0-9,])(?P<start>[0-9]+(?:\.[0-9]+)?)?(?:,(?P<end>[0-9]+(?:\.[0-9]+)?))?"
_FRAGMENT = re.compile(rf"(?:{_TIMES})?(?:(?:^|(?<=.)&)v=(?P<digest>[0-9a-f]{{16}}))?")


@dataclass(frozen=True)
class Reference:
    """What a reference says.

    Attributes:
        path: of the file.
        start_seconds: where the part begins, None for the beginning.
        end_seconds: where it ends, None for the end.
        digest: of the file's bytes, None if not given.
    """

    path: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    digest: str | None = None

    def __str__(self) -> str:
        times = ""
        if self.start_seconds is not None or self.end_seconds is not None:
            start = "" if self.start_seconds is None else plain(self.start_seconds)
            end = "" if self.end_seconds is None else f",{plain(self.end_seconds)}"
            times = f"t={start}{end}"
        version = "" if self.digest is None else f"v={self.digest}"
        fragment = "&".join(part for part in (times, version) if part)
        uri = quote_from_bytes(os.fsencode(self.path), safe="/")
        return f"{SCHEME}{uri}#{fragment}" if fragment else f"{SCHEME}{uri}"


def parse(reference: str) -> Reference:
    """Read a reference.

    Raises:
        InputError: not a reference, or one that is cut off or malformed.
    """
    if not looks_like_reference(reference):
        raise InputError(f"a reference begins with {SCHEME!r}, got {reference!r}")
    uri, _, fragment = reference.removeprefix(SCHEME).partition("#")
    match = _FRAGMENT.fullmatch(fragment)
    try:
        path = os.fsdecode(unquote_to_bytes(uri))
    except UnicodeEncodeError as error:
        raise InputError("malformed reference: it holds half a character", source=repr(reference)) from error
    if match is None or not path or reference.endswith("#"):
        raise InputError(
            "malformed reference, perhaps cut by a text splitter: make it again with AudioClip.reference()",
            source=reference,
        )
    start, end = (None if match[k] is None else float(match[k]) for k in ("start", "end"))
    return Reference(path, start, end, match["digest"])


def looks_like_reference(text: str) -> bool:
    """Whether `text` has a reference's form."""
    # "audio: a dog barks" is a text; nothing in a reference is a space.
    return isinstance(text, str) and text.startswith(SCHEME) and not text[6:7].isspace()


def plain(seconds: float) -> str:
    """Decimal notation that reads back as the same float, without an exponent."""
    return format(Decimal(repr(float(seconds))), "f").removesuffix(".0")
