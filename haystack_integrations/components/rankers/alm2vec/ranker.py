"""`ALM2VecRanker`: order documents of any kind by closeness to a query, under a question if there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack.documents import DocumentReader, blame, check_documents
from alm2vec_integrations._haystack.model import DEFAULT_TOKEN, EmbeddingComponent
from alm2vec_integrations._haystack.queries import in_haystacks_words, query_item
from alm2vec_integrations.checkpoint.configuration import Verify
from alm2vec_integrations.errors import InputError
from alm2vec_integrations.inputs import Item
from alm2vec_integrations.planning import Batching
from alm2vec_integrations.reranking import Ranked, arerank, rerank

_INSTEAD = "Pass the documents that a retriever found."


@component
class ALM2VecRanker(EmbeddingComponent):
    """Orders documents by the cosine of their vectors and the query's, both embedded anew.

    With a question, every recording on either side is paired with it and embedded as a query, and texts stand for
    answers: documents that were indexed without it are compared by that aspect. Which documents are audio is as for
    `ALM2VecDocumentEmbedder`.

    Example:
        >>> ranker = ALM2VecRanker(model="cara-ai/ALM2Vec-FT", root_path="calls", question="Is the customer angry?")
        >>> ranker.run(audio="calls/monday.flac", documents=found)["documents"]

    Args:
        model: as for `ALM2VecTextEmbedder`; so are `device`, `token`, `revision`, `trust_remote_code`,
            `local_files_only`, `dtype`, `model_kwargs`, `batch_size`, `max_batch_seconds`, `batching`,
            `verify`.
        top_k: how many documents to return.
        question: the aspect to compare by.
        instruction: for what is embedded as a query; None and "" are the published one.
        document_instruction: for what is embedded as a document; the same.
        meta_fields_to_embed: meta keys whose values are put before a text; values that are None are left out.
        embedding_separator: between those and the text.
        file_path_meta_field: the meta key that holds the path of a recording.
        root_path: the folder that those paths are relative to and must lie in; no path of a document is opened if
            None. The query's own path is opened wherever it is, unless it lies outside a folder given here.

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
        batch_size: int = 32,
        max_batch_seconds: float = 480.0,
        batching: Batching = "similar",
        verify: Verify = "full",
        top_k: int = 10,
        question: str | None = None,
        instruction: str | None = None,
        document_instruction: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        file_path_meta_field: str = "file_path",
        root_path: str | os.PathLike[str] | None = None,
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
        self.top_k = _checked_top_k(top_k)
        self.question = arguments.instruction("question", question)
        self.instruction = arguments.instruction("instruction", instruction)
        self.document_instruction = arguments.instruction("document_instruction", document_instruction)
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.file_path_meta_field = file_path_meta_field
        self.root_path = self._root_path
        self._reader = DocumentReader(
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )

    def to_dict(self) -> dict[str, Any]:
        """The component as basic types.

        Raises:
            ValueError: the token is not the name of an environment variable.
        """
        return self._to_dict(
            top_k=self.top_k,
            question=self.question,
            instruction=self.instruction,
            document_instruction=self.document_instruction,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
        )

    @component.output_types(documents=list[Document])
    def run(
        self,
        *,
        documents: list[Document],
        query: str | None = None,
        audio: str | Path | ByteStream | list[str | Path | ByteStream] | None = None,
        question: str | None = None,
        instruction: str | None = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """Rank documents.

        Args:
            documents: they stay as they are.
            query: in words; with `audio`, the question about it.
            audio: a recording as the query, or a list of exactly one.
            question: the aspect to compare by, for this run; None and "" are the component's.
            instruction: for what is embedded as a query, for this run; the same.
            top_k: how many to return; None is the component's.

        Returns:
            `documents`, copies of the best, best first, with the cosine as their `score`.

        Raises:
            TypeError: an argument of another type.
            InputError: neither `query` nor `audio`, or a document or query that cannot be embedded; it names which.
            AudioAccessError: a path outside `root_path`, or a file that has changed since it was converted.
            CheckpointError: the model cannot be loaded, or its code is not trusted.
        """
        asked = self._ask(documents, query, audio, question, instruction, top_k)
        if not documents:
            return {"documents": []}
        with asked.blamed():
            found = rerank(self._encoder(), asked.query, asked.candidates, **asked.how)
        return {"documents": asked.ranked(found)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        *,
        documents: list[Document],
        query: str | None = None,
        audio: str | Path | ByteStream | list[str | Path | ByteStream] | None = None,
        question: str | None = None,
        instruction: str | None = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """`run` without blocking the event loop; arguments, result and errors are the same."""
        asked = self._ask(documents, query, audio, question, instruction, top_k)
        if not documents:
            return {"documents": []}
        await self.warm_up_async()
        with asked.blamed():
            found = await arerank(self._encoder(), asked.query, asked.candidates, **asked.how)
        return {"documents": asked.ranked(found)}

    def _ask(self, documents: Any, query: Any, audio: Any, question: Any, instruction: Any, top_k: Any) -> _Asked:
        check_documents(documents, "ALM2VecRanker", _INSTEAD)
        how = {
            "question": arguments.instruction("question", question) or self.question,
            "instruction": arguments.instruction("instruction", instruction) or self.instruction,
            "document_instruction": self.document_instruction,
            "top_n": self.top_k if top_k is None else _checked_top_k(top_k),
        }
        asked = _Asked(documents, query_item(audio, query, self.root_path), [], how)
        for index, document in enumerate(documents):
            try:
                asked.candidates.append(self._reader.item(document))
            except InputError as error:
                raise blame(error, index, document) from error
        return asked


@dataclass
class _Asked:
    """One run: `candidates` are the items that `documents` are made of, `how` the arguments of `rerank`."""

    documents: list[Document]
    query: Item
    candidates: list[Item]
    how: dict[str, Any]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Make an error name its document."""
        try:
            yield
        except InputError as error:
            if error.index is None:
                raise in_haystacks_words(error) from error
            raise blame(error, error.index, self.documents[error.index]) from error

    def ranked(self, found: list[Ranked]) -> list[Document]:
        """Copies of the best documents with their scores."""
        return [replace(self.documents[one.index], score=one.score) for one in found]


def _checked_top_k(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"top_k must be a whole number of 1 or more, got {value!r}")
    return value
