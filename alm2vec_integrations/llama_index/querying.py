"""`AudioQueryBundle`: a query of words, of a recording, or of both, for retrievers and query engines as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from llama_index.core.schema import QueryBundle

from .. import arguments
from ..clips import AudioClip
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip
from .item_text import ItemText

_DECIDE = frozenset({"query_str", "audio", "instruction", "custom_embedding_strs"})


class ExampleVector(list[float]):
    """The vector of a recording as a query; by its class a reranker knows that it is not of the bundle's words."""


class _Retrieved(list[float]):
    """A vector that a retriever has written into a bundle: of the bundle as it was then."""


@dataclass
class AudioQueryBundle(QueryBundle):
    """A query for any retriever or query engine over an `ALM2VecEmbedding`.

    LlamaIndex's synchronous retrievers write the query's vector into the bundle, and take it from there the next time.
    Here a vector so written is forgotten when the query changes, and is no part of copies by `dataclasses.replace`.
    For a retriever with another embedding, make another bundle.

    Args:
        query_str: words; with `audio`, a question about it; "" for the recording alone.
        audio: a path or an `AudioClip`. Python code passes it, so it needs no `allowed_audio_roots`.
        instruction: for this query, in place of the embedding's; None and "" leave it to the embedding.
        custom_embedding_strs: what is embedded in place of `query_str`; not with `audio`.
        embedding: the query's vector, where it is known; not with `audio` or `instruction`, which it would make moot.

    Raises:
        InputError: there is nothing to embed, audio that is none, or arguments that would be ignored.
    """

    query_str: str = ""
    audio: AudioClip | str | os.PathLike[str] | None = field(default=None, kw_only=True)
    instruction: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.embedding, _Retrieved):
            self.embedding = None
        if self.image_path is not None:
            raise InputError("image_path is for image models: ALM2Vec embeds text and audio")
        if self.audio is not None:
            self.audio = _plain_clip(self.audio)
        self.instruction = arguments.instruction("instruction", self.instruction)
        if not isinstance(self.query_str, str):
            raise InputError(f"query_str must be a str, got {type(self.query_str).__name__}")
        if self.embedding is not None and (self.audio is not None or self.instruction is not None):
            raise InputError("embedding would make audio and instruction moot: pass the one or the others")
        if self.custom_embedding_strs is not None and self.audio is not None:
            raise InputError("custom_embedding_strs would make audio moot: pass the one or the other")
        if not self.query_str.strip() and self.audio is None and not self.custom_embedding_strs and not self.embedding:
            raise InputError("the query is empty: pass query_str, audio, or both")
        self.__dict__["_complete"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_complete", False):
            if name == "embedding" and value is not None:
                value = _Retrieved(value)
            elif name == "audio" and value is not None:
                value = _plain_clip(value)
            if name in _DECIDE:
                self.__dict__["embedding"] = None
        super().__setattr__(name, value)

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """The query without a vector that a retriever has written into it; `to_json` goes by this."""
        data: dict[str, Any] = super().to_dict(encode_json=encode_json)
        return data | {"embedding": None} if isinstance(self.embedding, _Retrieved) else data

    @classmethod
    def from_dict(cls, kvs: Any, *, infer_missing: bool = False) -> Self:
        """A query that was stored, of words alone; `from_json` goes by this.

        Raises:
            InputError: it names a recording, which whoever wrote it could choose.
        """
        if isinstance(kvs, Mapping) and kvs.get("audio") is not None:
            raise InputError("a stored query cannot decide which file is opened: make it anew, AudioQueryBundle(…)")
        return super().from_dict(kvs, infer_missing=infer_missing)

    @property
    def embedding_strs(self) -> list[str]:
        """What a retriever has embedded, as texts that carry the items."""
        if self.custom_embedding_strs is not None:
            return [ItemText(text, self.instruction) for text in self.custom_embedding_strs]
        return [ItemText(self.item, self.instruction)]

    @property
    def is_of_another(self) -> bool:
        """Whether a vector that the caller gave stands for the query, and no retriever's."""
        return self.embedding is not None and not isinstance(self.embedding, _Retrieved)

    @property
    def item(self) -> Item:
        """The words, the clip, or both."""
        if self.audio is None:
            return self.query_str
        clip = as_clip(self.audio)
        return AudioText(self.query_str, clip) if self.query_str.strip() else clip


def _plain_clip(audio: AudioClip | str | os.PathLike[str]) -> AudioClip:
    """A clip whose path is a `str`, which JSON can hold."""
    clip = as_clip(audio)
    return clip if clip.path is None else replace(clip, source=clip.path)
