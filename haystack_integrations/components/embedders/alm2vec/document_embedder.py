"""`ALM2VecDocumentEmbedder`: texts and recordings, mixed as they come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from haystack import Document, component, logging
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack.documents import (
    DocumentReader,
    blame,
    check_documents,
    with_provenance,
)
from alm2vec_integrations._haystack.model import DEFAULT_TOKEN, EmbeddingComponent
from alm2vec_integrations.checkpoint.configuration import Verify
from alm2vec_integrations.errors import InputError
from alm2vec_integrations.inputs import Item
from alm2vec_integrations.instructions import DEFAULT_INSTRUCTIONS, Task
from alm2vec_integrations.planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Batching

logger = logging.getLogger(__name__)

_INSTEAD = "In case you want to embed a string, please use the ALM2VecTextEmbedder."


@component
class ALM2VecDocumentEmbedder(EmbeddingComponent):
    """Embeds documents, of text and of audio.

    A document is audio if `meta["mime_type"]` is audio/*, whatever its content (a transcript or a placeholder is not
    embedded), or if it has no content but an audio blob or a path. Every other one is text. A part of a recording is
    one whose meta has `start_seconds` and `end_seconds`.

    Its meta says how a vector came about, over what was there under these keys: `alm2vec_model`, `alm2vec_revision`,
    `alm2vec_task`, `alm2vec_instruction`, `alm2vec_question` and `alm2vec_kind`, of the item.

    Example:
        >>> embedder = ALM2VecDocumentEmbedder(model="cara-ai/ALM2Vec-FT", root_path="calls")
        >>> embedder.run(documents=[Document(meta={"file_path": "monday.flac"}), Document(content="a note")])

    Args:
        model: as for `ALM2VecTextEmbedder`; so are `device`, `token`, `revision`, `trust_remote_code`,
            `local_files_only`, `dtype`, `model_kwargs`, `batch_size`, `max_batch_seconds`, `batching`,
            `verify`, `progress_bar` and `normalize_embeddings`.
        prefix: before every text.
        suffix: after every text.
        meta_fields_to_embed: meta keys whose values are put before a text; values that are None are left out.
        embedding_separator: between those and the text.
        file_path_meta_field: the meta key that holds the path of a recording.
        root_path: the folder that those paths are relative to and must lie in; no path is opened if None.
        task: what documents are to the model; "query" for an index of audio under a question.
        instruction: what vectors should capture; None and "" are the published one of `task`.
        document_question: paired with every audio document, which then is embedded under that aspect.
        raise_on_failure: raise the error of the first document that cannot be embedded. If False, such documents are
            handed on without an embedding, their error in the log and in `meta["alm2vec_error"]`.

    Raises:
        InputError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        device: ComponentDevice | None = None,
        token: Secret | None = DEFAULT_TOKEN,
        revision: str | None = None,
        trust_remote_code: bool | None = None,
        local_files_only: bool = False,
        dtype: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        batch_size: int = DEFAULT_MAX_ITEMS,
        max_batch_seconds: float = DEFAULT_MAX_SECONDS,
        batching: Batching = "similar",
        verify: Verify = "full",
        progress_bar: bool = True,
        normalize_embeddings: bool = True,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        file_path_meta_field: str = "file_path",
        root_path: str | os.PathLike[str] | None = None,
        task: Task = "document",
        instruction: str | None = None,
        document_question: str | None = None,
        raise_on_failure: bool = True,
    ) -> None:
        self._keep(
            root_path=root_path,
            model=model,
            device=device,
            token=token,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
            dtype=dtype,
            model_kwargs=model_kwargs,
            batch_size=batch_size,
            max_batch_seconds=max_batch_seconds,
            batching=batching,
            verify=verify,
        )
        self.progress_bar = arguments.flag("progress_bar", progress_bar)
        self.normalize_embeddings = arguments.flag("normalize_embeddings", normalize_embeddings)
        self.prefix = prefix
        self.suffix = suffix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.file_path_meta_field = file_path_meta_field
        self.root_path = self._root_path
        self.task: Task = arguments.task(task)
        self.instruction = arguments.instruction("instruction", instruction)
        self.document_question = arguments.instruction("document_question", document_question)
        self.raise_on_failure = arguments.flag("raise_on_failure", raise_on_failure)
        self._reader = DocumentReader(
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
            prefix=self.prefix,
            suffix=self.suffix,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )

    def to_dict(self) -> dict[str, Any]:
        """The component as basic types.

        Raises:
            ValueError: the token is not the name of an environment variable.
        """
        return self._to_dict(
            progress_bar=self.progress_bar,
            normalize_embeddings=self.normalize_embeddings,
            prefix=self.prefix,
            suffix=self.suffix,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
            task=self.task,
            instruction=self.instruction,
            document_question=self.document_question,
            raise_on_failure=self.raise_on_failure,
        )

    @component.output_types(documents=list[Document])
    def run(
        self, documents: list[Document], instruction: str | None = None, document_question: str | None = None
    ) -> dict[str, Any]:
        """Embed documents.

        Args:
            documents: they stay as they are.
            instruction: for this run; None and "" are the component's.
            document_question: the same.

        Returns:
            `documents`, copies in the same order with the same ids, each with its `embedding`.

        Raises:
            TypeError: not a list of documents.
            InputError: a document that cannot be embedded, by its place and id, if `raise_on_failure`.
            AudioAccessError: a path outside `root_path`, or a file that has changed since it was converted.
            CheckpointError: the model cannot be loaded, or its code is not trusted.
        """
        batch = self._read(documents, instruction, document_question)
        if not documents:
            return {"documents": []}
        self.warm_up()
        encoder = self._encoder()
        if self.raise_on_failure:
            with batch.blamed():
                batch.take(encoder.encode(batch.items, **batch.how))
        else:
            batch.take_partial(encoder.encode_partial(batch.items, **batch.how))
        return {"documents": batch.embedded({"model": self.model, "revision": encoder.revision})}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, documents: list[Document], instruction: str | None = None, document_question: str | None = None
    ) -> dict[str, Any]:
        """`run` without blocking the event loop; arguments, result and errors are the same."""
        batch = self._read(documents, instruction, document_question)
        if not documents:
            return {"documents": []}
        await self.warm_up_async()
        encoder = self._encoder()
        if self.raise_on_failure:
            with batch.blamed():
                batch.take(await encoder.aencode(batch.items, **batch.how))
        else:
            batch.take_partial(await encoder.aencode_partial(batch.items, **batch.how))
        return {"documents": batch.embedded({"model": self.model, "revision": encoder.revision})}

    def _read(self, documents: Any, instruction: str | None, question: str | None) -> _Batch:
        check_documents(documents, "ALM2VecDocumentEmbedder", _INSTEAD)
        own = arguments.instruction("instruction", instruction) or self.instruction or DEFAULT_INSTRUCTIONS[self.task]
        asked = arguments.instruction("document_question", question) or self.document_question
        how = {
            "task": self.task,
            "instruction": own,
            "normalize": self.normalize_embeddings,
            "show_progress": self.progress_bar,
        }
        batch = _Batch(documents, how, [], [], {}, {})
        for index, document in enumerate(documents):
            try:
                item = self._reader.item(document, asked)
            except InputError as error:
                named = blame(error, index, document)
                if self.raise_on_failure:
                    raise named from error
                batch.errors[index] = named
            else:
                batch.items.append(item)
                batch.places.append(index)
        return batch


@dataclass
class _Batch:
    """One run's documents, on their way to vectors.

    Attributes:
        documents: all of them.
        how: they are embedded.
        items: what those that can be read are made of.
        places: where each item's document stands.
        vectors: by the document's place, once they are there.
        errors: of the other documents, by place.
    """

    documents: list[Document]
    how: dict[str, Any]
    items: list[Item]
    places: list[int]
    vectors: dict[int, list[float]]
    errors: dict[int, InputError]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Make an error that names an item name its document."""
        try:
            yield
        except InputError as error:
            if error.index is None:
                raise
            place = self.places[error.index]
            raise blame(error, place, self.documents[place]) from error

    def take(self, vectors: Any) -> None:
        """The vectors of all items, float32 [len(items), dim]."""
        self.vectors = dict(zip(self.places, vectors.tolist(), strict=True))

    def take_partial(self, result: Any) -> None:
        """The vectors of some items, and the failures of the others."""
        rows = zip(result.indices.tolist(), result.embeddings.tolist(), strict=True)
        self.vectors = {self.places[index]: row for index, row in rows}
        for failure in result.failures:
            place = self.places[failure.index]
            error = InputError(failure.reason, index=failure.index, source=failure.source)
            self.errors[place] = blame(error, place, self.documents[place])

    def embedded(self, of_model: dict[str, str | None]) -> list[Document]:
        """Copies of the documents with what became of them."""
        items = dict(zip(self.places, self.items, strict=True))
        return [self._copy(place, document, items, of_model) for place, document in enumerate(self.documents)]

    def _copy(
        self, place: int, document: Document, items: dict[int, Item], of_model: dict[str, str | None]
    ) -> Document:
        if place in self.errors:
            logger.warning("Not embedded: {error}", error=str(self.errors[place]))
            meta = with_provenance(document.meta, None, {"error": str(self.errors[place])})
            return replace(document, embedding=None, meta=meta)
        said = {"task": self.how["task"], "instruction": self.how["instruction"], **of_model}
        meta = with_provenance(document.meta, items[place], said)
        return replace(document, embedding=self.vectors[place], meta=meta)
