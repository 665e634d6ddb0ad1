"""What an item to embed is. The kind is in the type: a `str` is text, an `AudioClip` is audio, an `AudioText` both."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import InputError

Kind = Literal["text", "audio", "audio+text"]

REFERENCE_SCHEME = "audio:"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DIGEST = re.compile(r"[0-9a-f]{16}")
_TIMES = r"t=(?=[0-9,])(?P<start>[0-9]+(?:\.[0-9]+)?)?(?:,(?P<end>[0-9]+(?:\.[0-9]+)?))?"
_FRAGMENT = re.compile(rf"(?:{_TIMES})?(?:(?:^|(?<=.)&)v=(?P<digest>[0-9a-f]{{16}}))?")


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A recording, or a part of one.

    Args:
        source: a path (`str` or `os.PathLike`), the bytes of an audio file, a binary file object that can seek, or
            samples as a one-dimensional array or CPU tensor (float in [-1, 1], or int16).
        start_seconds: where the part begins; the beginning if None.
        end_seconds: where it ends, exclusive; the end of the recording if None.
        sampling_rate: of `source` in Hz; needed for samples and refused for anything else, which carries its own.
        digest: the first 16 hex digits of the SHA-256 that the file's bytes must have when it is embedded.
        is_reference: whether a stored string named the path, so that `allowed_audio_roots` decides if it is opened;
            `from_reference` sets it.

    Raises:
        InputError: for a URL (download it first), an empty or wrongly typed source, and times out of order.
    """

    source: Any
    start_seconds: float | None = field(default=None, kw_only=True)
    end_seconds: float | None = field(default=None, kw_only=True)
    sampling_rate: int | None = field(default=None, kw_only=True)
    digest: str | None = field(default=None, kw_only=True)
    is_reference: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._check_source()
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
                raise InputError(
                    f"{name} must be a number of seconds, 0 or more, got {value!r}", source=self._source_name
                )
            object.__setattr__(self, name, float(value))
        if self.digest is not None:
            if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
                raise InputError(
                    f"digest must be 16 lower-case hex digits, got {self.digest!r}", source=self._source_name
                )
            if _is_samples(self.source):
                raise InputError("digest is of a file's bytes; samples have none", source=self._source_name)
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise InputError(
                f"end_seconds ({self.end_seconds}) must be greater than start_seconds ({self.start_seconds or 0})",
                source=self.name,
            )

    def _check_source(self) -> None:
        source, rate = self.source, self.sampling_rate
        is_samples = _is_samples(source)
        if isinstance(source, (str, os.PathLike)):
            path = os.fspath(source)
            if not isinstance(path, str) or not path:
                raise InputError(f"AudioClip needs a non-empty path, got {source!r}")
            if "\0" in path:
                raise InputError("a path cannot hold a NUL character", source=repr(path))
            if _URL.match(path):
                raise InputError("URLs are not opened: download the file first and pass its path", source=path)
            if path.startswith(REFERENCE_SCHEME):
                raise InputError("this is a reference, not a path: use AudioClip.from_reference", source=path)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            if len(source) == 0:
                raise InputError("AudioClip was given zero bytes")
        elif isinstance(source, io.TextIOBase):
            raise InputError('the file object was opened as text: open it with "rb"', source=self._source_name)
        elif not is_samples and not (hasattr(source, "read") and hasattr(source, "seek")):
            raise InputError(
                "AudioClip takes a path, the bytes of a file, a binary file object, or samples (numpy array or torch "
                f"tensor) with sampling_rate, got {type(source).__name__}"
            )
        if is_samples:
            if isinstance(rate, bool) or not isinstance(rate, Integral) or rate <= 0:
                raise InputError(
                    f"samples need sampling_rate, a whole number of Hz, got {rate!r}", source=self._source_name
                )
            object.__setattr__(self, "sampling_rate", int(rate))
            if source.ndim != 1:
                raise InputError(
                    f"samples must be one-dimensional (mono), got shape {tuple(source.shape)}: average the channels "
                    "first, so that which axis holds them is not guessed",
                    source=self._source_name,
                )
        elif rate is not None:
            raise InputError("sampling_rate belongs to samples; a file carries its own", source=self._source_name)

    @property
    def path(self) -> str | None:
        """The path as text, or None if the source is not a path."""
        return os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    @property
    def name(self) -> str:
        """The clip as an error message names it: its source, and its times if it has any."""
        if self.start_seconds is None and self.end_seconds is None:
            return self._source_name
        end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
        return f"{self._source_name} [{self.start_seconds or 0:g}-{end} s]"

    @property
    def _source_name(self) -> str:
        if self.path is not None:
            return self.path
        if isinstance(self.source, (bytes, bytearray, memoryview)):
            return f"<{len(self.source)} bytes>"
        if _is_samples(self.source):
            return f"<samples, shape {tuple(self.source.shape)}>"
        return f"<{type(self.source).__name__} {getattr(self.source, 'name', '')}".rstrip() + ">"

    def reference(self, *, digest: bool = True) -> str:
        """The clip as a string, `audio:<path>#t=<start>,<end>&v=<digest>`, for places that only hold strings.

        The path is percent-encoded, the times are a W3C media fragment, and the digest is the first 16 hex digits of
        the SHA-256 of the file's bytes, so that a changed file is noticed. `digest=False` leaves it out and does not
        read the file.

        Raises:
            InputError: the source is not a path.
            AudioError: the file cannot be read.
        """
        if self.path is None:
            raise InputError("only a clip whose source is a path has a reference: write it to a file", source=self.name)
        from .audio.access import file_digest

        times = ""
        if self.start_seconds is not None or self.end_seconds is not None:
            start = "" if self.start_seconds is None else _plain(self.start_seconds)
            end = "" if self.end_seconds is None else f",{_plain(self.end_seconds)}"
            times = f"t={start}{end}"
        version = f"v={file_digest(self.path)}" if digest else ""
        fragment = "&".join(part for part in (times, version) if part)
        uri = quote_from_bytes(os.fsencode(self.path), safe="/")
        return f"{REFERENCE_SCHEME}{uri}#{fragment}" if fragment else f"{REFERENCE_SCHEME}{uri}"

    @classmethod
    def from_reference(cls, reference: str) -> AudioClip:
        """The clip that `reference` names. Where it points is checked when it is embedded, not here.

        Raises:
            InputError: not a reference, or one that is cut off or malformed.
        """
        if not cls.looks_like_reference(reference):
            raise InputError(f"a reference begins with {REFERENCE_SCHEME!r}, got {reference!r}")
        uri, _, fragment = reference.removeprefix(REFERENCE_SCHEME).partition("#")
        match = _FRAGMENT.fullmatch(fragment)
        try:
            path = os.fsdecode(unquote_to_bytes(uri))
        except UnicodeEncodeError as error:
            raise InputError("malformed reference: it holds half a character", source=repr(reference)) from error
        if match is None or not path or reference.endswith("#"):
            raise InputError("malformed reference; was it cut by a text splitter?", source=reference)
        start, end = (None if match[k] is None else float(match[k]) for k in ("start", "end"))
        return cls(path, start_seconds=start, end_seconds=end, digest=match["digest"], is_reference=True)

    @staticmethod
    def looks_like_reference(text: str) -> bool:
        """Whether `text` has a reference's form. Only for texts that the caller knows to be documents."""
        # "audio: a dog barks" is a text; nothing in a reference is a space.
        return isinstance(text, str) and text.startswith(REFERENCE_SCHEME) and not text[6:7].isspace()

    def _key(self) -> tuple[Any, ...]:
        by_value = isinstance(self.source, (str, bytes, os.PathLike))
        source = (self.path or self.source) if by_value else id(self.source)
        return (source, self.start_seconds, self.end_seconds, self.sampling_rate, self.digest, self.is_reference)

    def __eq__(self, other: object) -> bool:
        # Arrays and file objects compare by identity: element-wise equality has no truth value.
        return self._key() == other._key() if isinstance(other, AudioClip) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True)
class AudioText:
    """A clip with a text, usually a question about it; embedded together as one vector.

    Args:
        text: not empty.
        audio: the clip.

    Raises:
        InputError: either part has another type, or the text is empty.
    """

    text: str
    audio: AudioClip

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InputError(f"the text of an AudioText must be a non-empty str, got {self.text!r}")
        object.__setattr__(self, "text", plain_text(self.text))
        if not isinstance(self.audio, AudioClip):
            raise InputError(
                f"the audio of an AudioText must be an AudioClip, got {type(self.audio).__name__}: "
                "wrap it, AudioClip(path)"
            )


Item: TypeAlias = str | AudioClip | AudioText
Items: TypeAlias = Item | Iterable[Item]


def kind_of(item: Item) -> Kind:
    """Which of the three kinds a checked item is."""
    if isinstance(item, str):
        return "text"
    return "audio" if isinstance(item, AudioClip) else "audio+text"


def clip_of(item: Item) -> AudioClip | None:
    """The item's clip, if it has one."""
    if isinstance(item, str):
        return None
    return item if isinstance(item, AudioClip) else item.audio


def text_of(item: Item) -> str | None:
    """The item's text, if it has one."""
    if isinstance(item, str):
        return item
    return item.text if isinstance(item, AudioText) else None


def name_of(item: Any) -> str:
    """The item as an error message names it."""
    if isinstance(item, str):
        return repr(item) if len(item) <= 60 else repr(item[:57] + "...")
    clip = clip_of(item) if isinstance(item, (AudioClip, AudioText)) else None
    return clip.name if clip is not None else type(item).__name__


def as_clip(audio: AudioClip | str | os.PathLike[str]) -> AudioClip:
    """`audio` as a clip, for parameters that can only mean audio, where a path may be written plainly."""
    return audio if isinstance(audio, AudioClip) else AudioClip(audio)


def is_single(items: Any) -> bool:
    """Whether `items` is one item rather than a collection of them."""
    return isinstance(items, (str, AudioClip, AudioText))


def as_list(items: Any) -> list[Any]:
    """The items of a collection in order, unchecked.

    Raises:
        InputError: not a collection with an order.
    """
    ordered = isinstance(items, (Sequence, Iterator)) or (
        isinstance(items, Iterable) and not isinstance(items, (Mapping, Set))
    )
    if not ordered or isinstance(items, (bytes, bytearray, memoryview, os.PathLike)) or hasattr(items, "read"):
        raise InputError(f"{_expected()}, or a list of them, got {type(items).__name__}{_hint(items)}")
    if hasattr(items, "dtype"):
        raise InputError(f"{_expected()}, or a list of them, got an array: wrap samples, AudioClip(x, sampling_rate=…)")
    return list(items)


def check_item(item: Any, index: int | None) -> Item:
    """`item` itself if it is one.

    Raises:
        InputError: another type, or an empty text; names `index`.
    """
    if not isinstance(item, (str, AudioClip, AudioText)):
        raise InputError(f"{_expected()}, got {type(item).__name__}{_hint(item)}", index=index)
    if not isinstance(item, str):
        return item
    if not item.strip():
        raise InputError("the text is empty: there is nothing to embed", index=index, source=repr(item))
    return plain_text(item)


def plain_text(text: str) -> str:
    """`text` as exactly a `str`: subclasses (numpy's, markup's) are not what the model card shows.

    Raises:
        InputError: it cannot be written as UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds half a character at position {error.start} and cannot be written as UTF-8: it was "
            "decoded wrongly where it came from"
        ) from error
    return str.__str__(text)


def _expected() -> str:
    return "an item is a str (text), an AudioClip or an AudioText"


def _hint(item: Any) -> str:
    if isinstance(item, (os.PathLike, bytes, bytearray, memoryview)) or hasattr(item, "read"):
        return ": wrap it, AudioClip(…)"
    if _is_samples(item):
        return ": wrap it, AudioClip(samples, sampling_rate=…)"
    if isinstance(item, Mapping):
        return ": dicts belong to the sentence-transformers door; here use AudioClip or AudioText"
    return ""


def _is_samples(source: Any) -> bool:
    # numpy's strings look like arrays too.
    return (
        not isinstance(source, (str, bytes))
        and hasattr(source, "dtype")
        and hasattr(source, "shape")
        and hasattr(source, "ndim")
    )


def _plain(seconds: float) -> str:
    """Decimal notation that reads back as the same float, without an exponent."""
    return format(Decimal(repr(float(seconds))), "f").removesuffix(".0")
