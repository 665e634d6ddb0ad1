"""LlamaIndex's `BaseEmbedding` over the encoder: audio travels as texts that carry it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    SkipValidation,
    model_serializer,
    model_validator,
)

from .. import arguments
from ..checkpoint.configuration import Verify
from ..checkpoint.stored import check_stored
from ..clips import AudioClip
from ..encoder import Encoder
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip
from ..instructions import Task
from ..planning import Batching
from .item_text import ItemText, by_name, carried, carried_by_document, example, texts_of
from .nodes import to_embed
from .querying import ExampleVector
from .settings import Audio, MadeEncoder, NameText, PathText, check_dump

logger = logging.getLogger(__name__)

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
        embed_batch_size: items in one call of the encoder, which makes its own forward passes of them, and decodes
            some ahead.
        encoder: stands in for the one that would be made from the arguments above. What it was made with is not known
            here: a dump cannot bring it back, and in an ingestion cache it shares nothing with any other.
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
    embed_batch_size: int = Field(default=256, gt=0, le=2048)
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
    _own: tuple[Encoder | None, str] = PrivateAttr(default=(None, ""))  # encoder, and its name in dumps
    _from_dump: bool = PrivateAttr(default=False)
    _accepted: tuple[str, str | None] | None = PrivateAttr(default=None)  # of what a dump names: model, revision

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
        if self.encoder is None:
            self._made.of(self._settings(), self.model_name)  # looks at every argument and loads nothing
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
            kwargs: more fields, and other values for those in `data`: `allowed_audio_roots`, `token`,
                `trust_remote_code`, `cache_dir`, `local_files_only`, `device`, `max_batch_items`,
                `max_batch_seconds`, `verify` and `encoder` are part of no dump.

        Raises:
            InputError: `data` itself holds one of these, or `model_kwargs` that are code or weights from elsewhere.
            CheckpointUnavailableError: when it is used: `data` names a checkpoint or a revision whose code is not
                trusted, and `trust_remote_code=True` is not among `kwargs`.
        """
        check_dump(cls, data, kwargs)
        made = super().from_dict(data, **kwargs)
        made._from_dump = True
        return made

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """As `from_dict`, of a dict: pydantic's own way to read what was stored."""
        if not isinstance(obj, Mapping):
            return super().model_validate(obj, **how)
        check_dump(cls, obj, {})
        made = super().model_validate({key: obj[key] for key in obj if key != "class_name"}, **how)
        made._from_dump = True
        return made

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **how: Any) -> Self:
        """The same, of JSON."""
        return cls.model_validate(json.loads(json_data), **how)

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _: SerializationInfo) -> dict[str, Any]:
        """LlamaIndex's dump. It tells encoders of one's own apart, as caches go by it, and does not bring them back."""
        data: dict[str, Any] = {**handler(self), "class_name": self.class_name()}
        if self.encoder is None:
            return data
        if self._own[0] is not self.encoder:
            self._own = self.encoder, uuid.uuid4().hex
        names = ("query_instruction", "document_instruction")  # where it has them, they can be assigned
        changeable = {name: str(getattr(self.encoder, name, None)) for name in names}
        return data | {"encoder": {"name": self._own[1], **changeable}}

    def with_instructions(self, *, query: str | None = None, document: str | None = None) -> Self:
        """A copy with other instructions that shares the model; None keeps what is set, "" goes back to the default."""
        changes = {"query_instruction": query, "text_instruction": document}
        given = {name: arguments.instruction(name, value) for name, value in changes.items() if value is not None}
        return self.model_copy(update=given)

    def core(self) -> Encoder:
        """What embeds; nothing is loaded for it.

        Raises:
            CheckpointUnavailableError: a dump names the checkpoint, and its code is not trusted for that.
        """
        if self.encoder is not None:
            return self.encoder
        named = (self.model_name, self.revision)
        if self._from_dump and not self.trust_remote_code and self._accepted != named:
            token, offline = self._plain_token(), self.local_files_only
            check_stored(*named, token=token, cache_dir=self.cache_dir, local_files_only=offline)
            self._accepted = named
        return self._made.of(self._settings(), self.model_name)

    async def acore(self) -> Encoder:
        """`core` without blocking the event loop: the hub may be asked about what a dump names."""
        return await asyncio.to_thread(self.core) if self._from_dump else self.core()

    def _settings(self) -> dict[str, Any]:
        """The fields that make the encoder, where they were given."""
        given = {name: getattr(self, name) for name in _ENCODER_FIELDS}
        settings = {name: value for name, value in given.items() if value is not None and value is not False}
        if self.trust_remote_code is not None:
            settings["trust_remote_code"] = self.trust_remote_code
        if self.token is not None:
            settings["token"] = self._plain_token()
        return settings

    def _plain_token(self) -> str | bool | None:
        return self.token.get_secret_value() if isinstance(self.token, SecretStr) else self.token

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
        return self.get_text_embedding_batch(texts_of(audio, instruction), show_progress=show_progress)

    async def aget_audio_embedding_batch(
        self, audio: Sequence[Audio], show_progress: bool = False, *, instruction: str | None = None
    ) -> list[list[float]]:
        """`get_audio_embedding_batch` without blocking the event loop."""
        return await self.aget_text_embedding_batch(texts_of(audio, instruction), show_progress=show_progress)

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
        return ExampleVector(self.get_query_embedding(example(audio, question, instruction)))

    async def aget_audio_query_embedding(
        self, audio: Audio, question: str | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """`get_audio_query_embedding` without blocking the event loop."""
        return ExampleVector(await self.aget_query_embedding(example(audio, question, instruction)))

    # Nodes

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed the nodes' audio, or their text where they have none, into them.

        Indexes pass keywords of their own on to every transformation; only `show_progress` means anything here.

        Raises:
            InputError: as `to_embed`; audio that cannot be read.
            AudioAccessError: a node's recording lies outside `allowed_audio_roots`, or has changed.
        """
        progress = bool(kwargs.get("show_progress", False))
        vectors = self.get_text_embedding_batch([to_embed(node) for node in nodes], show_progress=progress)
        return _embedded(nodes, vectors)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        progress = bool(kwargs.get("show_progress", False))
        vectors = await self.aget_text_embedding_batch([to_embed(node) for node in nodes], show_progress=progress)
        return _embedded(nodes, vectors)

    # What LlamaIndex calls

    def _get_query_embedding(self, query: str) -> list[float]:
        vector = self.core().encode(**self._query_side(query))
        return vector.tolist()  # type: ignore[no-any-return]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector = await (await self.acore()).aencode(**self._query_side(query))
        return vector.tolist()  # type: ignore[no-any-return]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        side = self._document_side(texts)
        with by_name(side["items"]):
            vectors = self.core().encode(**side)
        return vectors.tolist()  # type: ignore[no-any-return]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        side = self._document_side(texts)
        with by_name(side["items"]):
            vectors = await (await self.acore()).aencode(**side)
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
        pairs = [carried_by_document(text) for text in texts]
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

    # Copies and pickles

    def __copy__(self) -> Self:
        """A twin that shares the model, and whose changes do not push this one's encoder out."""
        twin = super().__copy__()
        twin._made = copy.copy(self._made)
        return twin

    def __getstate__(self) -> dict[Any, Any]:
        """What a pickle holds: the fields but for the token, without weights and without who listens in this process.

        LlamaIndex's own leaves out whatever cannot be pickled, and takes it from this object as well.
        """
        state = BaseModel.__getstate__(self)
        fields = {name: value for name, value in state["__dict__"].items() if name != "callback_manager"}
        try:
            pickle.dumps(fields["rate_limiter"])
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            logger.warning("the rate limiter cannot be pickled (%s): a copy in another process has none", error)
            fields["rate_limiter"] = None
        return state | {"__dict__": fields | {"token": None}, "from_dump": self._from_dump}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Make it anew of its fields."""
        self.__init__(**state["__dict__"])  # type: ignore[misc]
        self._from_dump = state["from_dump"]


def _embedded(nodes: Sequence[BaseNode], vectors: Sequence[list[float]]) -> Sequence[BaseNode]:
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    return nodes


def _of_dump(value: Any) -> Any:
    return ALM2VecEmbedding.from_dict(dict(value)) if isinstance(value, Mapping) else value


EmbeddingField = Annotated[ALM2VecEmbedding, BeforeValidator(_of_dump)]
"""As a field of something else, whose dump holds the embedding's."""
