"""LangChain's `Embeddings` over the encoder: audio rides in `page_content` as a reference."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from langchain_core.embeddings import Embeddings
from langchain_core.utils import secret_from_env
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SkipValidation,
    model_validator,
)

from ..checkpoint.configuration import Verify
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder, Encoder
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip
from ..instructions import DEFAULT_INSTRUCTIONS, Task
from ..planning import Batching
from . import overrides
from .queries import Audio, read_document

# Paths and torch's own objects are taken where their text is, and kept as text, which can be dumped and compared.
_Path = Annotated[str, BeforeValidator(lambda value: _as_path(value))]
_Name = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]

_ENCODER_FIELDS = (
    "revision",
    "cache_dir",
    "local_files_only",
    "trust_remote_code",
    "device",
    "dtype",
    "model_kwargs",
    "max_batch_items",
    "max_batch_seconds",
    "batching",
    "allowed_audio_roots",
    "verify",
)


def _as_path(value: Any) -> Any:
    """A path object as the text that `ALM2VecEncoder` reads as a folder."""
    return str(Path(value).expanduser().absolute()) if isinstance(value, os.PathLike) else value


@dataclass(frozen=True, repr=False)
class _Made:
    """The encoder made from the fields, and the values it was made from: other values make another."""

    settings: dict[str, Any]
    encoder: ALM2VecEncoder

    def __eq__(self, other: object) -> bool:
        # Embeddings with equal fields are equal, whatever they have made of them so far.
        return other is None or isinstance(other, _Made)

    __hash__ = None  # type: ignore[assignment]


class ALM2VecEmbeddings(BaseModel, Embeddings):
    """Text and audio documents, and text, audio and composed queries, as vectors of one space.

    LangChain's stores hand the embedder strings only, so an audio document's `page_content` is a reference,
    `AudioClip(path).reference()`. `embed_documents` opens references inside `allowed_audio_roots` and embeds every
    other string as text; `embed_query` takes any string as text.

    Nothing is loaded before the first text is embedded, and copies share one model.

    Example:
        >>> store = InMemoryVectorStore(ALM2VecEmbeddings(model="cara-ai/ALM2Vec-FT", allowed_audio_roots=["calls"]))
        >>> store.add_texts([AudioClip("calls/1.flac").reference(), "a transcript"])
        >>> store.similarity_search("an angry customer")

    Args:
        model: as for `ALM2VecEncoder`; so are `revision`, `cache_dir`, `local_files_only`, `trust_remote_code`,
            `device`, `dtype`, `model_kwargs`, `max_batch_items`, `max_batch_seconds`, `batching`,
            `allowed_audio_roots`, `verify` and `query_instruction`.
        token: for the hub; the environment's HF_TOKEN if not given. Not part of a pickle.
        document_task: what documents are to the model; "query" for an index of audio under a question.
        document_instruction: for documents; None is the published one of `document_task`.
        document_question: paired with every audio document, which then is embedded under that aspect.
        normalize: whether vectors have length 1.
        show_progress: draw a progress bar while documents are embedded.
        encoder: stands in for the one that would be made from the arguments above; it brings its `model`, which then is
            left out. Beside one that has none, `model` is a name for `cache_namespace`.
    """

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # a message could show the token
    )

    model_name: _Path = Field(default="", alias="model")
    revision: str | None = None
    token: SecretStr | bool | None = Field(default_factory=secret_from_env("HF_TOKEN", default=None), repr=False)
    cache_dir: _Path | None = None
    local_files_only: bool = False
    trust_remote_code: bool | None = None
    device: _Name | None = None
    dtype: _Name | None = None
    model_kwargs: dict[str, Any] | None = None
    max_batch_items: int | None = None
    max_batch_seconds: float | None = None
    batching: Batching | None = None
    allowed_audio_roots: _Path | list[_Path] | None = None
    verify: Verify | None = None
    query_instruction: str | None = None
    document_task: Task = "document"
    document_instruction: str | None = None
    document_question: str | None = None
    normalize: bool = True
    show_progress: bool = False
    encoder: SkipValidation[Encoder | None] = Field(default=None, exclude=True, repr=False)

    _made: _Made | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder is not None:
            self._check_encoder(self.encoder)
        elif not self.model_name:
            raise ValueError("model is missing: give a hub id, 'alm2vec-tiny' or a folder")
        self._core()
        return self

    def _check_encoder(self, encoder: Any) -> None:
        # By these names: an isinstance of the protocol would ask for `dim`, for which the model is loaded.
        if not all(callable(getattr(encoder, name, None)) for name in ("encode", "aencode")):
            raise ValueError(f"encoder must have encode and aencode, as ALM2VecEncoder has, got {encoder!r}")
        if given := self._settings():
            raise ValueError(f"encoder stands in for what these would make, so leave them out: {sorted(given)}")
        own = getattr(encoder, "model", None)
        if own is None and not self.model_name:
            raise ValueError("this encoder has no `model`: give one, a name by which caches tell it from others")
        if own is not None and self.model_name not in ("", str(own)):
            raise ValueError(f"encoder has a model already, {str(own)!r}: leave out model={self.model_name!r}")
        self.model_name = self.model_name or str(own)

    def _settings(self) -> dict[str, Any]:
        """The fields that make the encoder, where they were given."""
        given = {name: getattr(self, name) for name in _ENCODER_FIELDS}
        return {name: value for name, value in given.items() if value is not None and value is not False}

    def _core(self) -> Encoder:
        if self.encoder is not None:
            return self.encoder
        # The instructions stay here: each call passes its own, so that copies with others share the encoder.
        token = self.token.get_secret_value() if isinstance(self.token, SecretStr) else self.token
        settings = {"model": self.model_name, "token": token, **self._settings()}
        if self.trust_remote_code is not None:
            settings["trust_remote_code"] = self.trust_remote_code
        if self._made is None or self._made.settings != settings:
            # Copied, so that a list that is changed in place no longer equals what was used.
            self._made = _Made(copy.deepcopy(settings), ALM2VecEncoder(**settings))
        return self._made.encoder

    @property
    def cache_namespace(self) -> str:
        """Another one for every setting that makes other document vectors, for `CacheBackedEmbeddings`.

        It holds the model, the revision, `dtype` and `model_kwargs` as given, the task, instruction and question of
        documents, and `normalize`, as digits of a hash, so that it can be part of a file's name. Nothing is loaded, so
        a branch as `revision`, and the None that is "main", stand for themselves: give a commit if the cache outlives
        it. So does None as `dtype`, which another machine may take for another: give one if they share the cache.
        """
        core, default = self._core(), None
        loads: dict[str, Any] = {"model": self.model_name, "revision": None, "dtype": None, "model_kwargs": {}}
        if isinstance(core, ALM2VecEncoder):
            loads = {name: core._asked[name] for name in loads}
            default = core.document_instruction if self.document_task == "document" else core.query_instruction
        said = {
            **loads,
            "task": self.document_task,
            "instruction": self.document_instruction or default or DEFAULT_INSTRUCTIONS[self.document_task],
            "question": self.document_question or None,
            "normalize": self.normalize,
        }
        # Of model_kwargs, what JSON does not know, as torch's own objects, counts by its text.
        digits = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
        return f"alm2vec-{digits[:32]}-"

    def with_instructions(self, *, query: str | None = None, document: str | None = None) -> Self:
        """A copy with other instructions that shares the model; None keeps what is set, "" goes back to the default."""
        changes = {"query_instruction": query, "document_instruction": document}
        return self.with_settings(**{name: value for name, value in changes.items() if value is not None})

    def with_settings(self, **settings: Any) -> Self:
        """A copy with other values of fields; unlike those of `model_copy`, they are checked.

        It shares the model where that stays the same.

        Example:
            >>> by_speaker = embeddings.with_settings(document_task="query", document_question="Who is speaking?")

        Raises:
            InputError: there is no such field, or it is `encoder`.
            ValidationError: a field does not take the value.
        """
        if "encoder" in settings:
            raise InputError("another encoder makes other embeddings: construct them")
        changed = self.model_copy()
        for given, value in settings.items():
            name = "model_name" if given == "model" else given
            if name not in type(self).model_fields:
                close = difflib.get_close_matches(name, type(self).model_fields, n=1)
                raise InputError(f"there is no setting {given!r}" + (f": did you mean {close[0]!r}?" if close else ""))
            self.__pydantic_validator__.validate_assignment(changed, name, value)
        return changed

    def embed_documents(self, texts: list[str], *, instruction: str | None = None) -> list[list[float]]:
        """Vectors of texts and of audio references, in order.

        Raises:
            InputError: a text is empty, a reference is malformed, or its audio cannot be read; it names the item.
            AudioAccessError: a reference points outside `allowed_audio_roots`, or the file has changed.
        """
        return self._documents(self._parse(texts), instruction)

    async def aembed_documents(self, texts: list[str], *, instruction: str | None = None) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await self._adocuments(self._parse(texts), instruction)

    def embed_audio(self, clips: Sequence[Audio], *, instruction: str | None = None) -> list[list[float]]:
        """Vectors of audio documents given directly; these need no `allowed_audio_roots`.

        Raises:
            InputError: not clips or paths, or audio that cannot be read; it names the item.
        """
        return self._documents(self._clips(clips), instruction)

    async def aembed_audio(self, clips: Sequence[Audio], *, instruction: str | None = None) -> list[list[float]]:
        """`embed_audio` without blocking the event loop."""
        return await self._adocuments(self._clips(clips), instruction)

    def embed_query(self, text: str, *, instruction: str | None = None) -> list[float]:
        """The vector of a query in words; the string is never opened as a file.

        While an `ALM2VecRetriever` searches, its query stands for the text that it gave to the store.
        """
        return self._query(*self._asked_for(text, instruction))

    async def aembed_query(self, text: str, *, instruction: str | None = None) -> list[float]:
        """`embed_query` without blocking the event loop."""
        return await self._aquery(*self._asked_for(text, instruction))

    def embed_audio_query(
        self, audio: Audio, question: str | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """The vector of a query by example: a clip, or a clip with a question about it."""
        return self._query(_example(audio, question), instruction)

    async def aembed_audio_query(
        self, audio: Audio, question: str | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """`embed_audio_query` without blocking the event loop."""
        return await self._aquery(_example(audio, question), instruction)

    def __getstate__(self) -> dict[Any, Any]:
        """What a pickle holds: everything but the token and the weights."""
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"token": None}, "__pydantic_private__": {"_made": None}}

    def _parse(self, texts: list[str]) -> list[Item]:
        if isinstance(texts, str):
            raise InputError("embed_documents takes a list of texts, got one str: wrap it in a list")
        return [self._document(index, text) for index, text in enumerate(texts)]

    def _document(self, index: int, text: str) -> Item:
        item = read_document(index, text)
        return self._with_question(item) if isinstance(item, AudioClip) else item

    def _clips(self, clips: Sequence[Audio]) -> list[Item]:
        if isinstance(clips, (AudioClip, str, os.PathLike)):
            raise InputError(f"embed_audio takes a list of clips, got one {type(clips).__name__}: wrap it in a list")
        return [self._clip(index, clip) for index, clip in enumerate(clips)]

    def _clip(self, index: int, clip: Audio) -> Item:
        try:
            return self._with_question(as_clip(clip))
        except InputError as error:
            raise error.at(index) from error

    def _with_question(self, clip: AudioClip) -> Item:
        return AudioText(self.document_question, clip) if self.document_question else clip

    def _documents(self, items: list[Item], instruction: str | None) -> list[list[float]]:
        if not items:
            return []
        vectors = self._core().encode(items, **self._document_side(instruction))
        return vectors.tolist()  # type: ignore[no-any-return]

    async def _adocuments(self, items: list[Item], instruction: str | None) -> list[list[float]]:
        if not items:
            return []
        vectors = await self._core().aencode(items, **self._document_side(instruction))
        return vectors.tolist()  # type: ignore[no-any-return]

    def _document_side(self, instruction: str | None) -> dict[str, Any]:
        return {
            "task": self.document_task,
            "instruction": instruction or self.document_instruction,
            "normalize": self.normalize,
            "show_progress": self.show_progress,
        }

    def _asked_for(self, text: str, instruction: str | None) -> tuple[Item, str | None, Task]:
        """What a store asks for with `text`, with its instruction and task."""
        text = _one_text(text)
        # No store gives an instruction: a call with one is not a store's.
        waiting = None if instruction else overrides.consume(text)
        return (text, instruction, "query") if waiting is None else (waiting.item, waiting.instruction, waiting.task)

    def _query(self, item: Item, instruction: str | None, task: Task = "query") -> list[float]:
        vector = self._core().encode(item, **self._query_side(instruction, task))
        return vector.tolist()  # type: ignore[no-any-return]

    async def _aquery(self, item: Item, instruction: str | None, task: Task = "query") -> list[float]:
        vector = await self._core().aencode(item, **self._query_side(instruction, task))
        return vector.tolist()  # type: ignore[no-any-return]

    def _query_side(self, instruction: str | None, task: Task) -> dict[str, Any]:
        own = self.query_instruction if task == "query" else self._answer_instruction()
        return {"task": task, "instruction": instruction or own, "normalize": self.normalize}

    def _answer_instruction(self) -> str | None:
        """For texts with task "document", whatever task the store's own documents have."""
        return self.document_instruction if self.document_task == "document" else None


def _one_text(text: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"embed_query takes one str, got {type(text).__name__}")
    return text


def _example(audio: Audio, question: str | None) -> Item:
    clip = as_clip(audio)
    return AudioText(question, clip) if question else clip
