"""A retriever that takes recordings, questions and instructions to any vector store that our embeddings are in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.tools import BaseTool
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import BaseModel, ConfigDict, model_validator

from ..errors import InputError
from .overrides import PendingQuery, pending
from .queries import Asked, Audio, Count, QueryInput, check_count, understand

_OWN = ("instruction", "question", "audio", "text")
_INSTEAD = {
    "clip": "audio=",
    "top_k": "k=",
    "search_type": "the retriever's field search_type",
    "search_kwargs": "the retriever's field search_kwargs, or their keywords by themselves",
}


class ALM2VecRetriever(VectorStoreRetriever):
    """Finds documents by words, by a recording, or by a recording and a question about it.

    `invoke` takes a str or a dict (`Query`) of "text", "audio", "question" and "instruction":

    - a text is embedded as a query; with a question, it is an answer to it, and embedded as a document;
    - audio is embedded as a query, together with the text beside it or the question, which is the aspect to compare by.

    `k`, `instruction`, `question`, `text` and `audio` may be keywords of `invoke`, `ainvoke`, `batch` and `bind`; what
    such a keyword says comes before the dict, and the dict before the fields. Other keywords go to the store's search,
    as `filter` does.

    Example:
        >>> retriever = ALM2VecRetriever(vectorstore=store, k=5)
        >>> retriever.invoke("an angry customer")
        >>> retriever.invoke({"audio": "example.wav", "text": "What is the tone of the speaker?"})
        >>> retriever.bind(instruction="Represent the audio by the background noise.").invoke({"audio": "example.wav"})

    Args:
        vectorstore: a store that embeds with `ALM2VecEmbeddings`.
        k: how many documents to return; None is as `search_kwargs` or the store has it.
        instruction: for queries, in place of the embeddings' own.
        question: the aspect to compare by, as `document_question` of the embeddings that the store was filled with.
        search_type: "similarity", "similarity_score_threshold" or "mmr", where the store has it.
        search_kwargs: for the store's search, as `filter`, `score_threshold` or `fetch_k`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: Count = None
    instruction: str | None = None
    question: str | None = None

    @model_validator(mode="after")
    def _check_own(self) -> Self:
        for name in _OWN:
            if name in self.search_kwargs:
                raise ValueError(f"search_kwargs go to the store, which does not know {name!r}: give it by itself")
        if self.k is not None and "k" in self.search_kwargs:
            raise ValueError("k was given twice, by itself and in search_kwargs: leave out one")
        _check_keywords(self.search_kwargs)
        check_count("k", self.search_kwargs.get("k"))
        return self

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What `invoke` takes."""
        return QueryInput

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """A tool that takes a text; or the parts of a `Query`, where `arg_types` or `args_schema` say which."""
        if args_schema is None and arg_types is None:
            # LangChain makes no tool of an input that is a text or a dict.
            texts = self.with_types(input_type=str)
            return texts.as_tool(name=name or self.get_name(), description=description)
        return super().as_tool(args_schema, name=name, description=description, arg_types=arg_types)

    def _get_relevant_documents(
        self,
        query: QueryInput,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        instruction: str | None = None,
        question: str | None = None,
        text: str | None = None,
        audio: Audio | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        asked = self._understand(query, text=text, audio=audio, question=question, instruction=instruction)
        search, waiting = self._search(k, kwargs), self._pending(asked)
        with pending(waiting):
            found = super()._get_relevant_documents(waiting.text, run_manager=run_manager, **search)
        return self._checked(found, waiting)

    async def _aget_relevant_documents(
        self,
        query: QueryInput,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        instruction: str | None = None,
        question: str | None = None,
        text: str | None = None,
        audio: Audio | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        asked = self._understand(query, text=text, audio=audio, question=question, instruction=instruction)
        search, waiting = self._search(k, kwargs), self._pending(asked)
        with pending(waiting):
            found = await super()._aget_relevant_documents(waiting.text, run_manager=run_manager, **search)
        return self._checked(found, waiting)

    def _understand(self, query: QueryInput, **said: Any) -> Asked:
        return understand(query, **said, default_question=self.question, default_instruction=self.instruction)

    def _search(self, k: int | None, keywords: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the store's search."""
        _check_keywords(keywords)
        check_count("k", k)
        chosen = self.k if k is None else k
        return keywords if chosen is None else {**keywords, "k": chosen}

    def _pending(self, asked: Asked) -> PendingQuery:
        """What the embeddings will find, unless a cache would keep its vector for that of the text alone."""
        embeddings: Any = self.vectorstore.embeddings
        while embeddings is not None:
            if getattr(embeddings, "query_embedding_store", None):
                raise InputError(
                    f"{type(embeddings).__name__} keeps the vectors of queries by their text alone, and would mix up "
                    "what else they say: make it without query_embedding_cache; or make the vector with embed_query or "
                    "embed_audio_query and search with it: store.similarity_search_by_vector(vector)"
                )
            embeddings = getattr(embeddings, "underlying_embeddings", None)
        return PendingQuery(asked.placeholder, asked.item, asked.task, asked.instruction)

    def _checked(self, found: list[Document], query: PendingQuery) -> list[Document]:
        """`found`, if it was found by `query`."""
        if query.consumed:
            return found
        own = self.vectorstore.embeddings
        raise InputError(
            f"{type(self.vectorstore).__name__} did not ask ALM2VecEmbeddings for the vector of this query, so what it "
            f"found is the answer to something else (its embeddings: {'none' if own is None else type(own).__name__}). "
            "Give the store ALM2VecEmbeddings, and around them no cache of queries; or make the vector with "
            "embed_query or embed_audio_query and search with it: store.similarity_search_by_vector(vector)",
            source=repr(query.text),
        )


def _check_keywords(names: Iterable[str]) -> None:
    """Many stores take any keyword and drop it."""
    for name in names:
        if name in _INSTEAD:
            raise InputError(f"a search has no keyword {name!r}: use {_INSTEAD[name]}")
        if close := difflib.get_close_matches(name, _OWN, n=1, cutoff=0.75):
            raise InputError(f"there is no keyword {name!r}: did you mean {close[0]!r}?")
