"""A document compressor over the core's `rerank`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from .. import reranking
from ..inputs import Item
from .embeddings import ALM2VecEmbeddings
from .queries import QueryInput, read_document, understand


class ALM2VecReranker(BaseDocumentCompressor):
    """Orders documents anew by closeness to a query, by one aspect if there is a question.

    With a question, every recording on either side is embedded together with it, as the model card steers, and texts
    stand for answers. So a store that was filled without a question can be asked by aspect in a second step.

    A document whose `page_content` is a reference is audio, and is opened inside the embeddings'
    `allowed_audio_roots`; every other one is text.

    Args:
        embeddings: whose model, roots and instructions are used.
        question: the aspect to compare by, where the query brings none; the embeddings' `document_question` is about
            their store, and not asked here.
        instruction: for queries, in place of the embeddings' own.
        top_n: how many documents to return; all if None.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embeddings: ALM2VecEmbeddings
    question: str | None = None
    instruction: str | None = None
    top_n: int | None = None

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
        items, how = self._plan(documents, query)
        return _ranked(documents, reranking.rerank(self.embeddings._core(), candidates=items, **how))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: QueryInput,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - as above
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop."""
        items, how = self._plan(documents, query)
        return _ranked(documents, await reranking.arerank(self.embeddings._core(), candidates=items, **how))

    def _plan(self, documents: Sequence[Document], query: QueryInput) -> tuple[list[Item], dict[str, Any]]:
        asked = understand(query, default_question=self.question, default_instruction=self.instruction)
        items = [read_document(i, document.page_content) for i, document in enumerate(documents)]
        return items, {
            "query": asked.plain,
            "question": asked.question,
            "instruction": asked.instruction or self.embeddings.query_instruction,
            "document_instruction": self.embeddings._answer_instruction(),
            "top_n": self.top_n,
        }


def _ranked(documents: Sequence[Document], ranking: Sequence[reranking.Ranked]) -> list[Document]:
    found = []
    for one in ranking:
        document = documents[one.index]
        metadata = {**document.metadata, "relevance_score": one.score}
        found.append(document.model_copy(update={"metadata": metadata}))
    return found
