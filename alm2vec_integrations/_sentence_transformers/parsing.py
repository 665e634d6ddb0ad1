"""The forms in which sentence-transformers takes text, audio and both, as the encoder's items."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..audio.decoding import SAMPLING_RATE
from ..audio.recordings import AUDIO_SUFFIXES
from ..clips import AudioClip, is_decoder, is_samples
from ..errors import InputError
from ..inputs import AudioText, Item, check_item

Strings = Literal["text", "auto"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOOKS_LIKE_AUDIO = tuple(AUDIO_SUFFIXES | {".wma", ".amr", ".m4b", ".m4r", ".3gp", ".ape", ".wv", ".ra", ".aifc"})
"""Also of formats that are not read: what has such a name is not a text to embed."""

_MOST_CHANNELS = 64
"""A two-dimensional array with a longer and a shorter axis than this has its channels on the shorter one."""


@dataclass(frozen=True)
class Parsed:
    """One input.

    Attributes:
        item: for the encoder.
        instruction: what a system message of the input itself says; None without one.
    """

    item: Item
    instruction: str | None = None


def strings_setting(value: Any) -> Strings:
    """One of the two ways to take a `str`.

    Raises:
        InputError: another value.
    """
    if not isinstance(value, str) or value not in get_args(Strings):
        raise InputError(f"strings must be one of {get_args(Strings)}, got {value!r}")
    return value  # type: ignore[return-value]


def parse(value: Any, strings: Strings) -> Parsed:
    """An input as the item that it means.

    Raises:
        InputError: it means none; says which value that is.
    """
    try:
        if _is_conversation(value):
            return _parse_messages(value if isinstance(value, list) else [value], strings)
        return Parsed(check_item(_item(value, strings), index=None))
    except InputError as error:
        raise named(error, value) from error


def named(error: InputError, value: Any) -> InputError:
    """The same error, saying which value it is about, and no place.

    sentence-transformers sorts what it is given before it makes batches, so that a place would be that of another.
    """
    return type(error)(error.reason, source=error.source or reprlib.repr(value))


def _item(value: Any, strings: Strings) -> Any:
    if isinstance(value, str):
        return _string(value) if strings == "auto" else value
    if isinstance(value, (AudioClip, AudioText)):
        return value
    if isinstance(value, Mapping):
        return _dict(value)
    if isinstance(value, (tuple, list)):
        raise InputError(
            f"got a {type(value).__name__} of {len(value)}: a clip with a text is a dict, {{'audio': …, 'text': …}}, "
            "and pairs to be scored are for a cross-encoder"
        )
    return _clip(value)


def _string(value: str) -> Item:
    """A `str` by sentence-transformers' own rule: audio if it is the path of an audio file that exists."""
    if _URL.match(value.strip()):
        if re.split(r"[?#]", value.strip().lower(), maxsplit=1)[0].endswith(_LOOKS_LIKE_AUDIO):
            raise InputError("URLs are not opened: download the file first and pass its path", source=repr(value))
        return value
    if not value.strip().lower().endswith(_LOOKS_LIKE_AUDIO):
        return value
    try:
        if Path(value).is_file():
            return AudioClip(value)
    except OSError:  # longer than a path can be
        return value
    words = value.split()
    if len(words) > 1 and not any(separator in value for separator in ("/", "\\")):
        return value  # prose that ends like a file name
    raise InputError(
        'looks like a recording, and there is no such file: if it is a text, pass {"text": …} or load with '
        'strings="text"',
        source=repr(value),
    )


def _dict(value: Mapping[Any, Any]) -> Any:
    if not value.keys() <= {"path", "bytes"}:  # rows of a dataset have every key, and None for what is not there
        value = {key: one for key, one in value.items() if one is not None or key == "path"}
    keys = set(value)
    if keys == {"text"}:
        return _only_text(value["text"])
    if keys == {"audio"}:
        return _clip(value["audio"])
    if keys == {"audio", "text"}:
        return AudioText(_only_text(value["text"]), _clip(value["audio"]))
    if keys <= {"array", "sampling_rate", "path", "bytes"}:
        return _clip(value)
    raise InputError(
        "a dict holds \"text\", \"audio\" or both, or is audio itself ({'array', 'sampling_rate'} or {'path', "
        f"'bytes'}}), got the keys {sorted(map(str, keys))}"
    )


def _only_text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f'"text" must be a str, got {type(value).__name__}')
    return value


def _clip(value: Any) -> AudioClip:
    """What can only mean audio."""
    if isinstance(value, AudioClip):
        return value
    if isinstance(value, str) and AudioClip.looks_like_reference(value):
        return AudioClip.from_reference(value)
    if isinstance(value, Mapping) and set(value) <= {"array", "sampling_rate", "path"} and "array" in value:
        if value.get("sampling_rate") is None:
            raise InputError('{"array": …} needs a "sampling_rate" beside it, in Hz')
        label = value.get("path")
        return _samples(value["array"], value["sampling_rate"], label if isinstance(label, str) else None)
    if isinstance(value, (list, tuple)):
        raise InputError(f"audio is one recording, got a {type(value).__name__} of {len(value)}: pass them one by one")
    if is_samples(value) and not is_decoder(value):
        # As everywhere in sentence-transformers, an array without a rate is at the model's own.
        return _samples(value, SAMPLING_RATE, None)
    if isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)) or is_decoder(value):
        return AudioClip(value)
    if hasattr(value, "read") and hasattr(value, "seek"):
        return AudioClip(value)
    raise InputError(
        "an input is a str (text), a path, samples, a dict or messages (docs/sentence-transformers.md has the forms), "
        f"got {type(value).__name__}"
    )


def _samples(array: Any, rate: Any, label: str | None) -> AudioClip:
    if isinstance(array, list):  # as a dataset gives them that is not formatted
        array = _array(array)
    if not is_samples(array):
        raise InputError(f'"array" must be a numpy array or a torch tensor, got {type(array).__name__}')
    shape = tuple(array.shape)
    if len(shape) != 2 or 0 in shape:
        return AudioClip(array, sampling_rate=rate, label=label)
    shorter, longer = sorted(shape)
    if not shorter <= _MOST_CHANNELS < longer:
        raise InputError(
            f"an array of shape {shape} does not say which axis holds the channels: wrap it, AudioClip(x, "
            'sampling_rate=…, channels="first" or "last")'
        )
    first: Literal["first", "last"] = "first" if shape[0] == shorter else "last"
    return AudioClip(array, sampling_rate=rate, channels=first, label=label)


def _array(values: list[Any]) -> np.ndarray[Any, Any]:
    """Fractions as float32, whole numbers as 16-bit samples, which is what they are where they come from."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "iu" and array.size and np.abs(array).max() < 2**15:
            return array.astype(np.int16)
        if array.dtype.kind == "f":
            return array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f'"array" is a list, but not of numbers: {error}') from error
    raise InputError('"array" is a list, but not of fractions in [-1, 1] or of 16-bit samples: pass a numpy array')


# Chat messages


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _is_conversation(value: Any) -> bool:
    return _is_message(value) or (isinstance(value, list) and bool(value) and _is_message(value[0]))


def _parse_messages(messages: Sequence[Any], strings: Strings) -> Parsed:
    """One user's texts and at most one recording are the item, a system message is its instruction."""
    texts: list[str] = []
    clips: list[AudioClip] = []
    instructions: list[str] = []
    for message in messages:
        if not _is_message(message):
            raise InputError("every message of a conversation is a dict with a role and a content")
        if others := sorted(map(str, set(message) - {"role", "content"})):
            raise InputError(f"a message holds a role and a content, got {others} beside them")
        role, content = message["role"], message["content"]
        if role not in ("system", "user"):
            raise InputError(f"a message to be embedded is the user's, under a system message at most, got {role!r}")
        for part in [content] if isinstance(content, (str, Mapping)) else _parts(content):
            value = _part(part, strings)
            if role == "system":
                if not isinstance(value, str):
                    raise InputError("a system message is an instruction, in words")
                instructions.append(value)
            elif isinstance(value, str):
                texts.append(value)
            else:
                clips.append(value)
    if len(clips) > 1:
        raise InputError(f"one vector is of one recording at most, got messages with {len(clips)}")
    instruction = "\n".join(instructions) or None
    text = "\n".join(texts)
    if clips:
        return Parsed(AudioText(text, clips[0]) if text.strip() else clips[0], instruction)
    return Parsed(check_item(text, index=None), instruction)


def _parts(content: Any) -> Sequence[Any]:
    if not isinstance(content, (list, tuple)):
        raise InputError(f"a message's content is a str or a list of parts, got {type(content).__name__}")
    return content


def _part(part: Any, strings: Strings) -> str | AudioClip:
    """A part of a message, by its type, as chat templates have them."""
    if isinstance(part, str):
        item = _string(part) if strings == "auto" else part
        return item if isinstance(item, (str, AudioClip)) else part
    kind = part.get("type") if isinstance(part, Mapping) else None
    known = {"type", "text"} if kind == "text" else {"type", "audio", "path", "url"}
    if kind in ("text", "audio") and (others := sorted(map(str, set(part) - known))):
        raise InputError(f"a part of the type {kind!r} has no {others}: give each its own part")
    if kind == "text":
        return _only_text(part.get("text"))
    if kind == "audio":
        sources = [part[key] for key in ("audio", "path", "url") if part.get(key) is not None]
        if len(sources) == 1:
            return _clip(sources[0])
        raise InputError('a part of type "audio" holds its recording under "audio" or "path"')
    raise InputError(f'a part of a message has the type "text" or "audio", got {kind!r}')
