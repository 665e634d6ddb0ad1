"""LlamaIndex's `BaseEmbedding` over the encoder: audio travels as texts that carry it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, SkipValidation, model_validator

from .. import arguments
from ..checkpoint.configuration import Verify
from ..clips import AudioClip
from ..encoder import Encoder
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip
from ..instructions import Task
from ..planning import DEFAULT_MAX_ITEMS, Batching
from .item_text import ItemText, carried
from .nodes import embedding_text
from .settings import Audio, MadeEncoder, NameText, PathText

_ENCODER_FIELDS = (
    "revision",
    "cache_dir",
    "local_files_only",
    "device",
    "dtype",
    "model_kwargs",
    "max_batch_items",
    "max_batch_seconds",
    "batching",
    "allowed_audio_roots",
    "verify",
)

_NEVER_STORED = frozenset({"token", "trust_remote_code", "allowed_audio_roots"})
"""What opens doors: only Python code decides it, and no stored configuration."""


class ALM2VecEmbedding(BaseEmbedding):
    """Text and audio nodes, and text, audio and composed queries, as vectors of one space.

    A `str` is a text, whatever it looks like. Audio comes as nodes (`AudioReader`, `AudioNodeParser`, `AudioNode`), as
    queries (`AudioQueryBundle`), or by the methods below that are named for it. Recordings that nodes name are opened
    only inside `allowed_audio_roots`; a clip that a call is given needs none.

    Nothing is loaded before the first item is embedded, and copies share one model. A dump (`to_dict`), by which
    ingestion caches tell embeddings apart, holds what vectors depend on, and not where or how fast they are computed.

    Example:
        >>> embedding = ALM2VecEmbedding(model_name="cara-ai/ALM2Vec-FT", allowed_audio_roots=["calls"])
        >>> index = VectorStoreIndex([AudioNode.from_clip("calls/1.flac")], embed_model=embedding)
        >>> index.as_retriever().retrieve("an angry customer")

    Args:
        model_name: as `model` for `ALM2VecEncoder`; as there are `revision`, `token`, `cache_dir`, `local_files_only`,
            `trust_remote_code`, `device`, `dtype`, `model_kwargs`, `max_batch_items`, `max_batch_seconds`, `batching`,
            `allowed_audio_roots`, `verify` and `query_instruction`.
        text_instruction: for documents, text and audio; None is the published one of `document_task`. LlamaIndex's
            name for what is `document_instruction` elsewhere in this package, which is taken too.
        document_task: what documents are to the model; "query" for an index of audio under a question.
        document_question: paired with every audio document, which then is embedded under that aspect.
        normalize: whether vectors have length 1.
        embed_batch_size: items in one call of the encoder, which makes its own forward passes of them.
        encoder: stands in for the one that would be made from the arguments above.
        embeddings_cache: refused: it goes by text alone, and would answer a query with the vector of a document.
            `IngestionPipeline` has a cache that is right.
    """

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # a message could show the token
    )

    model_name: PathText
    embed_batch_size: int = Field(default=DEFAULT_MAX_ITEMS, gt=0, le=2048)
    revision: str | None = None
    dtype: NameText | None = None
    model_kwargs: dict[str, Any] | None = None
    batching: Batching | None = None
    query_instruction: str | None = None
    text_instruction: str | None = Field(
        default=None, validation_alias=AliasChoices("text_instruction", "document_instruction")
    )
    document_task: Task = "document"
    document_question: str | None = None
    normalize: bool = True
    embeddings_cache: Any = Field(default=None, frozen=True)

    # No part of a dump: what opens doors, and what vectors do not depend on.
    token: SecretStr | bool | None = Field(default=None, exclude=True, repr=False)
    trust_remote_code: bool | None = Field(default=None, exclude=True)
    allowed_audio_roots: PathText | list[PathText] | None = Field(default=None, exclude=True)
    cache_dir: PathText | None = Field(default=None, exclude=True)
    local_files_only: bool = Field(default=False, exclude=True)
    device: NameText | None = Field(default=None, exclude=True)
    max_batch_items: int | None = Field(default=None, exclude=True)
    max_batch_seconds: float | None = Field(default=None, exclude=True)
    verify: Verify | None = Field(default=None, exclude=True)
    encoder: SkipValidation[Encoder | None] = Field(default=None, exclude=True, repr=False)

    _made: MadeEncoder = PrivateAttr(default_factory=MadeEncoder)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.embeddings_cache is not None:
            raise InputError(
                "embeddings_cache goes by text alone and would mix up tasks, instructions and models: use the cache "
                "of IngestionPipeline, which goes by all of them"
            )
        if self.encoder is not None and (given := self._settings()):
            raise InputError(f"encoder stands in for what these would make, so leave them out: {sorted(given)}")
        for name in ("query_instruction", "text_instruction", "document_question"):
            arguments.instruction(name, getattr(self, name))
        self.core()
        return self

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "ALM2VecEmbedding"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The embedding that `to_dict` dumped.

        Args:
            data: what `to_dict` gave.
            kwargs: more fields, and other values for those in `data`: `allowed_audio_roots`, `token` and
                `trust_remote_code` are part of no dump.

        Raises:
            InputError: `data` itself holds one of these.
        """
        if decided := sorted(_NEVER_STORED & data.keys()):
            raise InputError(f"a stored configuration cannot decide {decided}: pass them to from_dict as keywords")
        return super().from_dict(data, **kwargs)

    def with_instructions(self, *, query: str | None = None, document: str | None = None) -> Self:
        """A copy with other instructions that shares the model; None keeps what is set, "" goes back to the default."""
        changes = {"query_instruction": query, "text_instruction": document}
        given = {name: arguments.instruction(name, value) for name, value in changes.items() if value is not None}
        return self.model_copy(update=given)

    def core(self) -> Encoder:
        """What embeds; nothing is loaded for it."""
        return self.encoder or self._made.of(self._settings(), self.model_name)

    def _settings(self) -> dict[str, Any]:
        """The fields that make the encoder, where they were given."""
        given = {name: getattr(self, name) for name in _ENCODER_FIELDS}
        settings = {name: value for name, value in given.items() if value is not None and value is not False}
        if self.trust_remote_code is not None:
            settings["trust_remote_code"] = self.trust_remote_code
        if self.token is not None:
            settings["token"] = self.token.get_secret_value() if isinstance(self.token, SecretStr) else self.token
        return settings

    # Audio, by LlamaIndex's own way of texts

    def get_audio_embedding(self, audio: Audio, *, instruction: str | None = None) -> list[float]:
        """The vector of an audio document.

        Args:
            audio: a path or an `AudioClip`; it needs no `allowed_audio_roots`.
            instruction: in place of `text_instruction`.

        Raises:
            InputError: not a clip or a path, or audio that cannot be read.
        """
        return self.get_text_embedding(ItemText(as_clip(audio), instruction))

    async def aget_audio_embedding(self, audio: Audio, *, instruction: str | None = None) -> list[float]:
        """`get_audio_embedding` without blocking the event loop."""
        return await self.aget_text_embedding(ItemText(as_clip(audio), instruction))

    def get_audio_embedding_batch(
        self, audio: Sequence[Audio], show_progress: bool = False, *, instruction: str | None = None
    ) -> list[list[float]]:
        """The vectors of audio documents, in order; arguments and errors as for `get_audio_embedding`."""
        return self.get_text_embedding_batch(_texts(audio, instruction), show_progress=show_progress)

    async def aget_audio_embedding_batch(
        self, audio: Sequence[Audio], show_progress: bool = False, *, instruction: str | None = None
    ) -> list[list[float]]:
        """`get_audio_embedding_batch` without blocking the event loop."""
        return await self.aget_text_embedding_batch(_texts(audio, instruction), show_progress=show_progress)

    def get_audio_query_embedding(
        self, audio: Audio, question: str | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """The vector of a query by example, as for `QueryBundle(question, embedding=…)`.

        Args:
            audio: a path or an `AudioClip`; it needs no `allowed_audio_roots`.
            question: about the recording, which then is compared by that aspect.
            instruction: in place of `query_instruction`.

        Raises:
            InputError: not a clip or a path, or audio that cannot be read.
        """
        return self.get_query_embedding(_example(audio, question, instruction))

    async def aget_audio_query_embedding(
        self, audio: Audio, question: str | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """`get_audio_query_embedding` without blocking the event loop."""
        return await self.aget_query_embedding(_example(audio, question, instruction))

    # Nodes

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed the nodes' audio, or their text where they have none, into them.

        Indexes pass keywords of their own on to every transformation; only `show_progress` means anything here.

        Raises:
            InputError: as `embedding_text`; audio that cannot be read.
            AudioAccessError: a node's recording lies outside `allowed_audio_roots`, or has changed.
        """
        progress = bool(kwargs.get("show_progress", False))
        vectors = self.get_text_embedding_batch([embedding_text(node) for node in nodes], show_progress=progress)
        return _embedded(nodes, vectors)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        progress = bool(kwargs.get("show_progress", False))
        vectors = await self.aget_text_embedding_batch([embedding_text(node) for node in nodes], show_progress=progress)
        return _embedded(nodes, vectors)

    # What LlamaIndex calls

    def _get_query_embedding(self, query: str) -> list[float]:
        vector = self.core().encode(**self._query_side(query))
        return vector.tolist()  # type: ignore[no-any-return]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector = await self.core().aencode(**self._query_side(query))
        return vector.tolist()  # type: ignore[no-any-return]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = self.core().encode(**self._document_side(texts))
        return vectors.tolist()  # type: ignore[no-any-return]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = await self.core().aencode(**self._document_side(texts))
        return vectors.tolist()  # type: ignore[no-any-return]

    def _query_side(self, query: str) -> dict[str, Any]:
        item, instruction = carried(query)
        return {
            "items": item,
            "task": "query",
            "instruction": instruction or self.query_instruction,
            "normalize": self.normalize,
        }

    def _document_side(self, texts: Iterable[str]) -> dict[str, Any]:
        pairs = [carried(text) for text in texts]
        return {
            "items": [self._asked(item) for item, _ in pairs],
            "task": self.document_task,
            "instruction": [instruction or self.text_instruction for _, instruction in pairs],
            "normalize": self.normalize,
        }

    def _asked(self, item: Item) -> Item:
        if self.document_question and isinstance(item, AudioClip):
            return AudioText(self.document_question, item)
        return item

    # Pickles

    def __getstate__(self) -> dict[Any, Any]:
        """What a pickle holds: the fields but for the token, without weights and without who listens in this process.

        LlamaIndex's own leaves out whatever cannot be pickled, and takes it from this object as well.
        """
        state = BaseModel.__getstate__(self)
        fields = {name: value for name, value in state["__dict__"].items() if name != "callback_manager"}
        return state | {"__dict__": fields | {"token": None}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Make it anew of its fields."""
        self.__init__(**state["__dict__"])  # type: ignore[misc]


def _texts(audio: Sequence[Audio], instruction: str | None) -> list[str]:
    if isinstance(audio, (AudioClip, str)) or not isinstance(audio, Sequence):
        raise InputError(f"this takes a list of clips, got one {type(audio).__name__}: wrap it in a list")
    return [_text(index, clip, instruction) for index, clip in enumerate(audio)]


def _text(index: int, audio: Audio, instruction: str | None) -> ItemText:
    try:
        return ItemText(as_clip(audio), instruction)
    except InputError as error:
        raise error.at(index) from error


def _example(audio: Audio, question: str | None, instruction: str | None) -> ItemText:
    clip = as_clip(audio)
    return ItemText(AudioText(question, clip) if question else clip, instruction)


def _embedded(nodes: Sequence[BaseNode], vectors: Sequence[list[float]]) -> Sequence[BaseNode]:
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    return nodes
