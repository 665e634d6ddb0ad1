"""`ItemText`: a `str` that carries an item, so that audio takes LlamaIndex's way of texts."""

from __future__ import annotations

from typing import Any, Self

from ..clips import AudioClip
from ..inputs import AudioText, Item


class ItemText(str):
    """What `ALM2VecEmbedding` embeds in place of the text that it reads as.

    Batching, events, callbacks and rate limits are LlamaIndex's, which has them for a `str` alone. The characters are
    for those who look on, as events and keyword search do; only an object of this class, which Python code has made,
    is ever audio, and the same characters in a plain `str` are a text.

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


def _shown(item: Item) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, AudioText):
        return f"{item.text}\n{_shown(item.audio)}"
    return _name(item)


def _name(clip: AudioClip) -> str:
    # Nothing is opened for a name.
    return clip.name if clip.path is None else clip.reference(digest=clip.digest is not None)
