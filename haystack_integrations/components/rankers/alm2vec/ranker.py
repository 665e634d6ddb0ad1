"""`ALM2VecRanker`: order documents of any kind by closeness to a query, under a question if there is one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document, component, logging
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack.documents import DocumentReader, blame, check_documents
from alm2vec_integrations._haystack.model import DEFAULT_TOKEN, EmbeddingComponent
from alm2vec_integrations._haystack.queries import haystacks_words, query_item
from alm2vec_integrations.checkpoint.configuration import Verify
from alm2vec_integrations.errors import InputError
from alm2vec_integrations.inputs import AudioText, Item, check_item
from alm2vec_integrations.planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Batching
from alm2vec_integrations.reranking import Part, Ranking
from alm2vec_integrations.runtime import EncodeResult

logger = logging.getLogger(__name__)

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
        prefix: before every document's text, as the document embedder's `prefix`; give both the same.
        suffix: after it, the same.
        meta_fields_to_embed: meta keys whose values are put before a text; values that are None are left out.
        embedding_separator: between those and the text.
        file_path_meta_field: the meta key that holds the path of a recording.
        root_path: the folder that those paths are relative to and must lie in; no path of a document is opened if
            None. The query's own path is opened wherever it is, unless it lies outside a folder given here.
        raise_on_failure: raise the error of the first document that cannot be embedded. If False, such documents are
            left out with a warning; a query that cannot be embedded is an error all the same.

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
        top_k: int = 10,
        question: str | None = None,
        instruction: str | None = None,
        document_instruction: str | None = None,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        file_path_meta_field: str = "file_path",
        root_path: str | os.PathLike[str] | None = None,
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
        self.top_k = _checked_top_k(top_k)
        self.question = arguments.instruction("question", question)
        self.instruction = arguments.instruction("instruction", instruction)
        self.document_instruction = arguments.instruction("document_instruction", document_instruction)
        self.prefix = prefix
        self.suffix = suffix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.file_path_meta_field = file_path_meta_field
        self.root_path = self._root_path
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
            top_k=self.top_k,
            question=self.question,
            instruction=self.instruction,
            document_instruction=self.document_instruction,
            prefix=self.prefix,
            suffix=self.suffix,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
            raise_on_failure=self.raise_on_failure,
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
        """Rank documents. Arguments are given by name: which of them are a query, and which optional, varies.

        Args:
            documents: they stay as they are.
            query: in words; with `audio`, the question about it, and so the aspect to compare by.
            audio: a recording as the query, or a list of exactly one.
            question: the aspect to compare by, for this run and both sides; None and "" are the component's.
            instruction: for what is embedded as a query, for this run; the same.
            top_k: how many to return; None is the component's.

        Returns:
            `documents`, copies of the best, best first, with the cosine as their `score`.

        Raises:
            TypeError: an argument of another type.
            InputError: neither `query` nor `audio`; two questions, `question` and a `query` with `audio`; a query that
                cannot be embedded, or, if `raise_on_failure`, a document; it names which.
            AudioAccessError: a path outside `root_path`, or a file that has changed since it was converted.
            CheckpointError: the model cannot be loaded, or its code is not trusted.
        """
        asked = self._ask(documents, query, audio, question, instruction, top_k)
        if not asked.places:
            return {"documents": []}
        encoder = self._encoder()
        for part in asked.ranking.parts:
            with asked.blamed(part):
                if self.raise_on_failure or part.places is None:
                    part.rows = encoder.encode(part.items, **_how(part))
                else:
                    asked.take_partial(part, encoder.encode_partial(part.items, **_how(part)))
        return {"documents": asked.ranked()}

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
        if not asked.places:
            return {"documents": []}
        encoder = await self._encoder_async()
        for part in asked.ranking.parts:
            with asked.blamed(part):
                if self.raise_on_failure or part.places is None:
                    part.rows = await encoder.aencode(part.items, **_how(part))
                else:
                    asked.take_partial(part, await encoder.aencode_partial(part.items, **_how(part)))
        return {"documents": asked.ranked()}

    def _ask(self, documents: Any, query: Any, audio: Any, question: Any, instruction: Any, top_k: Any) -> _Asked:
        check_documents(documents, "ALM2VecRanker", _INSTEAD)
        item = query_item(audio, query, self.root_path)
        asked = arguments.instruction("question", question)
        # Whoever asks it, a question is for both sides, so the query's own must not stay in its item.
        if isinstance(item, AudioText):
            if asked:
                raise InputError(
                    "with audio, query is the question about it, and question is one too: pass one of them"
                )
            asked, item = item.text, item.audio
        candidates, places = self._read(documents)
        with haystacks_words():
            ranking = Ranking(
                item,
                candidates,
                question=asked or self.question,
                instruction=arguments.instruction("instruction", instruction) or self.instruction,
                document_instruction=self.document_instruction,
                top_n=self.top_k if top_k is None else _checked_top_k(top_k),
            )
        return _Asked(documents, places, ranking)

    def _read(self, documents: list[Document]) -> tuple[list[Item], list[int]]:
        """The items that documents are made of, and where each document stands."""
        items, places = [], []
        for index, document in enumerate(documents):
            try:
                items.append(check_item(self._reader.item(document), None))
                places.append(index)
            except InputError as error:
                named = blame(error, index, document)
                if self.raise_on_failure:
                    raise named from error
                _warn(named)
        return items, places


@dataclass
class _Asked:
    """One run.

    Attributes:
        documents: all of them.
        places: where the document of each candidate stands.
        ranking: of the candidates.
    """

    documents: list[Document]
    places: list[int]
    ranking: Ranking

    @contextmanager
    def blamed(self, part: Part) -> Iterator[None]:
        """Make an error name its document."""
        try:
            with haystacks_words(), part.blamed():
                yield
        except InputError as error:
            if error.index is None:
                raise
            raise self._named(error, error.index) from error

    def take_partial(self, part: Part, result: EncodeResult) -> None:
        """The vectors of those items that have one; the others are far from everything, and their errors logged."""
        part.rows = np.full((len(part.items), result.embeddings.shape[1]), np.nan, dtype=np.float32)
        part.rows[result.indices] = result.embeddings
        for failure in result.failures:
            error = InputError(failure.reason, source=failure.source)
            _warn(self._named(error, (part.places or ())[failure.index]))

    def ranked(self) -> list[Document]:
        """Copies of the best documents with their scores."""
        best = [one for one in self.ranking.best() if not math.isnan(one.score)]
        return [replace(self.documents[self.places[one.index]], score=one.score) for one in best]

    def _named(self, error: InputError, candidate: int) -> InputError:
        place = self.places[candidate]
        return blame(error, place, self.documents[place])


def _how(part: Part) -> dict[str, Any]:
    return {"task": part.task, "instruction": part.instruction}


def _warn(error: InputError) -> None:
    logger.warning("Not ranked, and left out: {error}", error=str(error))


def _checked_top_k(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"top_k must be a whole number of 1 or more, got {value!r}")
    return value
