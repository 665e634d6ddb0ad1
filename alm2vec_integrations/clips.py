"""`AudioClip`: a recording, or a part of one, in any form that Python code holds recordings in."""

from __future__ import annotations

import hashlib
import io
import operator
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from . import references
from .errors import InputError

MOST_SECONDS = 1e9  # 31 years

# One letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# pathlib makes one slash of two. Folders may have such a name with other words, and these are seen in URLs alone.
_FOLDED_URL = re.compile(r"(https?|s?ftp|file|s3|gs|gcs|az|abfss?|hdfs|hf|data):[/\\]", re.IGNORECASE)

# Made for this purpose and never to change: ids in users' stores are derived from it.
_NAMESPACE = uuid.UUID("6f3a6e0c-4f0e-5c0a-9a52-0d6d5f6a1a37")


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A recording, or a part of one.

    Args:
        source: a path (`str` or `os.PathLike`), the bytes of an audio file, a binary file object that can seek,
            samples as an array or tensor (floating point in [-1, 1], or int16), a torchcodec `AudioDecoder`, or a row
            of a `datasets` audio column: `{"path", "bytes"}` or `{"array", "sampling_rate"}`.
        start_seconds: where the part begins; the beginning if None.
        end_seconds: where it ends, exclusive; the end of the recording if None.
        sampling_rate: of `source` in Hz; needed for samples and refused for anything else, which carries its own.
        channels: for two-dimensional samples, whether their "first" axis holds the channels (as in torch) or their
            "last" (as in soundfile).
        digest: the first 16 hex digits of the SHA-256 that the file's bytes must have when it is embedded.
        label: what messages call it, for sources without a name.
        is_reference: whether a stored string named the path, so that `allowed_audio_roots` decides if it is opened;
            `from_reference` sets it.

    Raises:
        InputError: for a URL (download it first), an empty or wrongly typed source, and times out of order.
    """

    source: Any
    start_seconds: float | None = field(default=None, kw_only=True)
    end_seconds: float | None = field(default=None, kw_only=True)
    sampling_rate: int | None = field(default=None, kw_only=True)
    channels: Literal["first", "last"] | None = field(default=None, kw_only=True)
    digest: str | None = field(default=None, kw_only=True)
    label: str | None = field(default=None, kw_only=True)
    is_reference: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.label is not None and not isinstance(self.label, str):
            raise InputError(f"label must be a str, got {self.label!r}")
        if not isinstance(self.is_reference, bool):
            raise InputError(f"is_reference must be True or False, got {self.is_reference!r}")
        if isinstance(self.source, Mapping):
            self._take_row(self.source)
        self._check_source()
        self._check_samples()
        self._check_times()
        if self.digest is not None:
            if not isinstance(self.digest, str) or not references.DIGEST.fullmatch(self.digest):
                raise self._wrong(f"digest must be 16 lower-case hex digits, got {self.digest!r}")
            if is_samples(self.source) or is_decoder(self.source):
                raise self._wrong("digest is of a file's bytes; samples have none")

    def _wrong(self, reason: str) -> InputError:
        return InputError(reason, source=self._source_name)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _take_row(self, row: Mapping[Any, Any]) -> None:
        """Read a row of an audio column of the datasets library."""
        keys = set(row)
        path = row.get("path")
        if {"array", "sampling_rate"} <= keys <= {"array", "sampling_rate", "path"}:
            given, rate = self.sampling_rate, row["sampling_rate"]
            if given is not None and (_whole_number(given) or repr(given)) != (_whole_number(rate) or repr(rate)):
                raise InputError(f"sampling_rate={given!r}, but the dict says {rate!r}")
            self._set("source", row["array"])
            self._set("sampling_rate", rate)
        elif keys and keys <= {"path", "bytes"}:
            data = row.get("bytes")
            if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
                raise InputError(f'"bytes" must be the bytes of a file, or None, got {type(data).__name__}')
            self._set("source", path if data is None else data)
        else:
            raise InputError(
                'a dict is {"path", "bytes"} or {"array", "sampling_rate"}, as the datasets library has them, '
                f"got the keys {sorted(map(str, keys))}"
            )
        if self.label is None and isinstance(path, str) and self.source is not path:
            self._set("label", path)

    def _check_source(self) -> None:
        source = self.source
        if isinstance(source, (str, os.PathLike)):
            path = os.fspath(source)
            if not isinstance(path, str) or not path:
                raise InputError(f"AudioClip needs a non-empty path, got {source!r}")
            if "\0" in path:
                raise InputError("a path cannot hold a NUL character", source=repr(path))
            try:
                os.fsencode(path)
            except UnicodeEncodeError as error:
                raise InputError("a path cannot hold half a character", source=repr(path)) from error
            if _URL.match(path) or (not isinstance(source, str) and _FOLDED_URL.match(path)):
                raise InputError("URLs are not opened: download the file first and pass its path", source=path)
            if path.startswith(references.SCHEME):
                raise InputError("this is a reference, not a path: use AudioClip.from_reference", source=path)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            if len(source) == 0:
                raise self._wrong("AudioClip was given zero bytes")
        elif isinstance(source, io.TextIOBase):
            raise self._wrong('the file object was opened as text: open it with "rb"')
        elif not (is_samples(source) or is_decoder(source) or (has(source, "read") and has(source, "seek"))):
            raise InputError(
                "AudioClip takes a path, the bytes of a file, a binary file object, or samples (numpy array or torch "
                f"tensor) with sampling_rate, got {type(source).__name__}"
            )

    def _check_samples(self) -> None:
        source, rate = self.source, self.sampling_rate
        if not is_samples(source):
            for name, value in (("sampling_rate", rate), ("channels", self.channels)):
                if value is not None:
                    raise self._wrong(f"{name} belongs to samples; a file carries its own")
            return
        hertz = _whole_number(rate)
        if hertz is None or hertz <= 0:
            raise self._wrong(f"samples need sampling_rate, a whole number of Hz, got {rate!r}")
        self._set("sampling_rate", hertz)
        if self.channels is not None and not _is_one_of(self.channels, ("first", "last")):
            raise self._wrong(f'channels must be "first", "last" or None, got {self.channels!r}')
        shape = _shape(source)
        if shape is None:
            raise InputError(
                f"samples must be one array or tensor of one or two axes, got a {type(source).__name__} without a "
                "shape of whole numbers: pass each recording in it by itself"
            )
        if hasattr(source, "mask") and hasattr(source, "filled"):  # numpy's
            raise self._wrong(
                "samples are masked, and what is heard where they are is not said: fill them, x.filled(0)"
            )
        if (reason := _why_unheard(source)) is not None:
            raise self._wrong(reason)
        if source.ndim == 1 and self.channels is not None:
            raise self._wrong(f"channels={self.channels!r} belongs to two-dimensional samples, got shape {shape}")
        if source.ndim == 2 and self.channels is None:
            raise self._wrong(
                f'samples of shape {shape} need channels="first" or "last": which axis holds them is not guessed'
            )
        if source.ndim not in (1, 2):
            raise self._wrong(f"samples must have one axis, or two of which one holds the channels, got shape {shape}")

    def _check_times(self) -> None:
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < MOST_SECONDS:  # type: ignore[operator]
                raise self._wrong(f"{name} must be a number of seconds, 0 or more, got {value!r}")
            self._set(name, float(value) + 0.0)  # -0.0 is 0.0
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise InputError(
                f"end_seconds ({self.end_seconds}) must be greater than start_seconds ({self.start_seconds or 0})",
                source=self.name,
            )

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
        if self.label is not None:
            return self.label
        if self.path is not None:
            return self.path
        if isinstance(self.source, (bytes, bytearray, memoryview)):
            return f"<{len(self.source)} bytes>"
        if is_samples(self.source):
            return f"<samples, shape {_shape(self.source)}>"
        return f"<{type(self.source).__name__} {_text_of(self.source, 'name')}".rstrip() + ">"

    @property
    def id(self) -> str:
        """A UUID that is the same in every run for the same path, or the same bytes, and the same times.

        It does not change with a file's contents: an index that is updated under this id replaces what it held.

        Raises:
            InputError: the source is neither a path nor bytes.
        """
        path = self.path
        if path is None and isinstance(self.source, (bytes, bytearray, memoryview)):
            path = f"sha256/{hashlib.sha256(bytes(self.source)).hexdigest()}"
        if path is None:
            raise self._wrong("only a clip whose source is a path or bytes has an id of its own")
        return str(uuid.uuid5(_NAMESPACE, str(references.Reference(path, self.start_seconds, self.end_seconds))))

    def reference(self, *, digest: bool = True) -> str:
        """The clip as a string, `audio:<path>#t=<start>,<end>&v=<digest>`, for places that only hold strings.

        The path is percent-encoded, the times are a W3C media fragment, and the digest is the first 16 hex digits of
        the SHA-256 of the file's bytes, so that a changed file is noticed; a `digest` that the clip has is kept.
        `digest=False` leaves it out and does not read the file.

        Raises:
            InputError: the source is not a path.
            AudioError: the file cannot be read.
        """
        if self.path is None:
            raise InputError("only a clip whose source is a path has a reference: write it to a file", source=self.name)
        if digest and self.is_reference and self.digest is None:
            # A stored string must not decide which file is read.
            raise self._wrong("is a reference without a digest, and its file is not opened here: pass digest=False")
        from .audio.access import file_digest

        version = (self.digest or file_digest(self.path)) if digest else None
        return str(references.Reference(self.path, self.start_seconds, self.end_seconds, version))

    @classmethod
    def from_reference(cls, reference: str) -> AudioClip:
        """The clip that `reference` names. Where it points is checked when it is embedded, not here.

        Raises:
            InputError: not a reference, or one that is cut off or malformed.
        """
        said = references.parse(reference)
        return cls(
            said.path,
            start_seconds=said.start_seconds,
            end_seconds=said.end_seconds,
            digest=said.digest,
            is_reference=True,
        )

    @staticmethod
    def looks_like_reference(text: str) -> bool:
        """Whether `text` has a reference's form. Only for texts that the caller knows to be documents."""
        return references.looks_like_reference(text)

    def _key(self) -> tuple[Any, ...]:
        by_value = isinstance(self.source, (str, bytes, os.PathLike))
        source = (self.path or self.source) if by_value else id(self.source)
        times = (self.start_seconds, self.end_seconds)
        return (source, *times, self.sampling_rate, self.channels, self.digest, self.is_reference)

    def __eq__(self, other: object) -> bool:
        # Arrays and file objects compare by identity: element-wise equality has no truth value.
        return self._key() == other._key() if isinstance(other, AudioClip) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


def _is_one_of(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in names


def is_samples(source: Any) -> bool:
    """Whether `source` is an array or tensor."""
    # numpy's strings look like arrays too.
    return (
        not isinstance(source, (str, bytes)) and has(source, "dtype") and has(source, "shape") and has(source, "ndim")
    )


def has(source: Any, name: str) -> bool:
    """`hasattr`, also of objects that fail when asked."""
    try:
        return hasattr(source, name)
    except Exception:  # it is there, and fails
        return True


def _text_of(source: Any, name: str) -> str:
    """What an object of a foreign class says of itself; nothing where it does not, as where asking fails."""
    try:
        return str(getattr(source, name, ""))
    except Exception:  # whatever a foreign class raises
        return ""


def _shape(source: Any) -> tuple[int, ...] | None:
    """The shape of samples; None if it is none, as that of torch's nested tensors."""
    try:
        shape = tuple(operator.index(length) for length in source.shape)
        return shape if len(shape) == source.ndim else None
    except Exception:  # whatever a foreign class raises
        return None


def _whole_number(value: Any) -> int | None:
    """A whole number, also as the array or tensor without axes that a row of datasets may hold; None for others."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    try:
        is_one = value.ndim == 0 and "bool" not in str(value.dtype)
        return operator.index(value) if is_one else None
    except Exception:  # no such thing, or whatever a foreign class raises
        return None


def _why_unheard(source: Any) -> str | None:
    """Why an array or tensor has no samples that can be read, and what to do; None if it has."""
    if _text_of(source, "is_meta") == "True":
        return "samples are on the meta device, which holds shapes and no values: load them first"
    if _text_of(source, "is_quantized") == "True":
        return "samples are quantized: pass x.dequantize()"
    layout, dtype = _text_of(source, "layout"), _text_of(source, "dtype")
    if layout.startswith("torch.") and layout != "torch.strided":
        return f"samples are of layout {layout}, and are read one after the other: pass x.to_dense()"
    if "complex" in dtype:
        return (
            f"samples are {dtype}, and sound is real: pass x.real, or, if they are a spectrum, the recording it was "
            "made of"
        )
    return None


def is_decoder(source: Any) -> bool:
    """Whether `source` is a torchcodec `AudioDecoder`, by what it can do."""
    return has(source, "get_samples_played_in_range") and has(source, "metadata")
