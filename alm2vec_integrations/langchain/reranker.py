"""A document compressor over the core's ranking."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from ..reranking import Ranked, Ranking
from .embeddings import ALM2VecEmbeddings
from .queries import Count, QueryInput, understand


class ALM2VecReranker(BaseDocumentCompressor):
    """Orders documents anew by closeness to a query, by one aspect if there is a question.

    The query is embedded as `ALM2VecRetriever` embeds it, and the documents as the embeddings do for a store, so that
    scores are those of a search. A question takes the place of the embeddings' `document_question`.

    Where the embeddings are not made for an aspect (no `document_question`, task "document") and there is a question,
    every recording on either side is embedded together with it as a query, as the model card steers, and texts stand
    for answers. So a store that was filled without a question can be asked by aspect in a second step.

    A document whose `page_content` is a reference is audio, and is opened inside the embeddings'
    `allowed_audio_roots`; every other one is text.

    Args:
        embeddings: whose model, roots and instructions are used.
        question: the aspect to compare by, where the query brings none.
        instruction: in place of the embeddings' own, for the query and for recordings that are steered as it is.
        top_n: how many documents to return; all if None.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embeddings: ALM2VecEmbeddings
    question: str | None = None
    instruction: str | None = None
    top_n: Count = None

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: QueryInput,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - there is nothing inside to call back about
    ) -> list[Document]:
        """The best documents, best first: copies, with "relevance_score", the cosine, in their metadata.

        Args:
            documents: references and texts.
            query: a text, or a dict of `Query`, as for `ALM2VecRetriever`.
            callbacks: not called.

        Raises:
            InputError: a document or the query cannot be embedded; it names the place in `documents`, or the query.
            AudioAccessError: a reference points outside the embeddings' `allowed_audio_roots`.
        """
        core, ranking = self.embeddings._core(), self._plan(documents, query)
        for part in ranking.parts:
            with part.blamed():
                part.rows = core.encode(part.items, task=part.task, instruction=part.instruction)
        return _ranked(documents, ranking.best())

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: QueryInput,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - as above
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop."""
        core, ranking = self.embeddings._core(), self._plan(documents, query)
        for part in ranking.parts:
            with part.blamed():
                part.rows = await core.aencode(part.items, task=part.task, instruction=part.instruction)
        return _ranked(documents, ranking.best())

    def _plan(self, documents: Sequence[Document], query: QueryInput) -> Ranking:
        asked = understand(query, default_question=self.question, default_instruction=self.instruction)
        own, question = self.embeddings, asked.question or (asked.text if asked.clip is not None else None)
        for_an_aspect = own.document_task == "query" or bool(own.document_question)
        if for_an_aspect and question:
            own = own.with_settings(document_question=question)
        ranking = Ranking(
            asked.plain,
            own._parse([document.page_content for document in documents]),
            question=question,
            instruction=asked.instruction or own.query_instruction,
            document_instruction=own.document_instruction,
            top_n=self.top_n,
        )
        for part in ranking.parts:
            if part.places is None:
                # An answer's too, which the core would take from the documents.
                part.instruction = own._query_side(asked.instruction, part.task)["instruction"]
            elif for_an_aspect:
                part.task, part.instruction = own.document_task, own.document_instruction
        return ranking


def _ranked(documents: Sequence[Document], ranking: Sequence[Ranked]) -> list[Document]:
    found = []
    for one in ranking:
        document = documents[one.index]
        metadata = {**document.metadata, "relevance_score": one.score}
        found.append(document.model_copy(update={"metadata": metadata}))
    return found
