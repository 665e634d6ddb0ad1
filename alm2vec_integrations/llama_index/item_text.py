"""How audio takes LlamaIndex's way of texts: in a `str` that carries it, or names it where only characters are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from ..clips import AudioClip
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip, name_of
from .settings import Audio


class ItemText(str):
    """What `ALM2VecEmbedding` embeds in place of the text that it reads as.

    Batching, events, callbacks and rate limits are LlamaIndex's, which has them for a `str` alone. The characters are
    for those who look on, as events and keyword search do; the same characters in a plain `str` are a text.

    Args:
        item: what is embedded.
        instruction: how, in place of the embedding's own; None and "" leave it to the embedding.
        caption: what is known of it in words; read by those who look on, not embedded.
    """

    item: Item
    instruction: str | None

    def __new__(cls, item: Item, instruction: str | None = None, *, caption: str = "") -> Self:
        """The characters: the caption, the item's text and its clip, each on a line of its own."""
        return cls._made("\n".join(filter(None, (caption, _shown(item)))), item, instruction or None)

    @classmethod
    def _made(cls, characters: str, item: Item, instruction: str | None) -> Self:
        text = super().__new__(cls, characters)
        text.item, text.instruction = item, instruction
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._made, (str(self), self.item, self.instruction)

    def __str__(self) -> str:
        return str.__str__(self)


def carried(text: str) -> tuple[Item, str | None]:
    """The item and the instruction that a text carries; any other text is an item itself, with no instruction."""
    return (text.item, text.instruction) if isinstance(text, ItemText) else (text, None)


def texts_of(audio: Sequence[Audio], instruction: str | None) -> list[str]:
    """Texts that carry the clips of a list.

    Raises:
        InputError: no list, or something that is no clip; names its place.
    """
    if isinstance(audio, (AudioClip, str)) or not isinstance(audio, Sequence):
        raise InputError(f"this takes a list of clips, got one {type(audio).__name__}: wrap it in a list")
    return [_text(index, clip, instruction) for index, clip in enumerate(audio)]


def _text(index: int, audio: Audio, instruction: str | None) -> ItemText:
    try:
        return ItemText(as_clip(audio), instruction)
    except InputError as error:
        raise error.at(index) from error


def example(audio: Audio, question: str | None, instruction: str | None) -> ItemText:
    """The text that carries a query by example."""
    clip = as_clip(audio)
    return ItemText(AudioText(question, clip) if question else clip, instruction)


@contextmanager
def by_name(items: Sequence[Item]) -> Iterator[None]:
    """Make an error name its item and no place: LlamaIndex makes batches, and a place would be one in a batch."""
    try:
        yield
    except InputError as error:
        source = error.source or (None if error.index is None else name_of(items[error.index]))
        raise type(error)(error.reason, source=source) from error


REFERENCE_KEY = "audio_reference"
"""Metadata: names the recording in the text that LlamaIndex has a stored node embedded as."""

_MARK = "alm2vec:"
# Beside its key, as templates of metadata have it, and no longer than paths are.
_MARKED = re.compile(rf"{REFERENCE_KEY}\W{{1,16}}{_MARK}(audio:\S{{0,16384}}?[#&]v=[0-9a-f]{{16}})(?![0-9a-f])")


def marked(clip: AudioClip) -> str:
    """The clip's reference with a mark, for the metadata of nodes, which stores bring back as plain texts."""
    return _MARK + clip.reference()


def clip_in(text: str) -> AudioClip | None:
    """The recording that metadata in a text name by `marked`; None if they name none.

    Anything else that looks like it is words: whoever writes about references does not mean what they point to.
    """
    found = _MARKED.search(text)
    try:
        return None if found is None else AudioClip.from_reference(found[1])
    except InputError:  # `marked` makes no such
        return None


def carried_by_document(text: str) -> tuple[Item, str | None]:
    """As `carried`, and the recording that metadata in a text name; for what is embedded as a document.

    LlamaIndex hands over a node as its text, and a node from a store or a cache is none of this package's.
    """
    plain = isinstance(text, str) and not isinstance(text, ItemText)
    clip = clip_in(text) if plain else None
    return carried(text) if clip is None else (clip, None)


def _shown(item: Item) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, AudioText):
        return f"{item.text}\n{_shown(item.audio)}"
    return _name(item)


def _name(clip: AudioClip) -> str:
    # Nothing is opened for a name.
    return clip.name if clip.path is None else clip.reference(digest=clip.digest is not None)
