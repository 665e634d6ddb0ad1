"""What an item to embed is. The kind is in the type: a `str` is text, an `AudioClip` is audio, an `AudioText` both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from .clips import AudioClip, has, is_samples
from .errors import InputError

Kind = Literal["text", "audio", "audio+text"]


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


def in_order(items: Any) -> Iterable[Any]:
    """`items` itself if it is a collection, or any other source of items one after the other.

    Raises:
        InputError: not a collection with an order.
    """
    ordered = isinstance(items, (Sequence, Iterator)) or (
        isinstance(items, Iterable) and not isinstance(items, (Mapping, Set))
    )
    if not ordered or isinstance(items, (bytes, bytearray, memoryview, os.PathLike)) or has(items, "read"):
        raise InputError(f"{_expected()}, or a list of them, got {type(items).__name__}{_hint(items)}")
    if has(items, "dtype"):
        raise InputError(f"{_expected()}, or a list of them, got an array: wrap samples, AudioClip(x, sampling_rate=…)")
    return cast("Iterable[Any]", items)


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
    if isinstance(item, (os.PathLike, bytes, bytearray, memoryview)) or has(item, "read"):
        return ": wrap it, AudioClip(…)"
    if is_samples(item):
        return ": wrap it, AudioClip(samples, sampling_rate=…)"
    if isinstance(item, Mapping):
        return ": wrap audio in dicts, as datasets has it, in AudioClip(…)"
    return ""
