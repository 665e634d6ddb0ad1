"""`ALM2VecRerank`: retrieved nodes in a new order, their audio embedded under the query's question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field

from .. import reranking
from ..errors import InputError
from ..inputs import AudioText, Item
from ..reranking import Ranked
from .embedding import EmbeddingField
from .item_text import carried_by_document
from .nodes import embedding_text
from .querying import AudioQueryBundle, ExampleVector


class ALM2VecRerank(BaseNodePostprocessor):
    """Embeds the retrieved nodes again and orders them by closeness to the query.

    The vectors of an index were made before the question was known. With one, recordings are embedded with it, as the
    model card steers, and texts as answers to it; without one, nodes are embedded as documents. `instruction` is for
    what is embedded as a query.

    Args:
        embed_model: whose model, instructions and `allowed_audio_roots` are used.
        top_n: how many nodes to return.
        question: the aspect to compare by; None is the text of an `AudioQueryBundle` with text and audio, or else the
            embedding's `document_question`.
        instruction: in place of the embedding's `query_instruction`; that of an `AudioQueryBundle` goes before both.
    """

    model_config = ConfigDict(extra="forbid")

    embed_model: EmbeddingField
    top_n: int = Field(default=2, gt=0)
    question: str | None = None
    instruction: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "ALM2VecRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """The best nodes, best first, with the cosine as their score; those passed in stay as they are.

        Raises:
            InputError: no query, or one that is not what its words say; a node or the query cannot be embedded, and
                then it names the node's place.
            AudioAccessError: a node's recording lies outside `allowed_audio_roots`, or has changed.
        """
        query, how = self._asked(query_bundle)
        with self._event(nodes, query_bundle) as best:
            candidates: list[Item] = [carried_by_document(embedding_text(one.node))[0] for one in nodes]
            best += _chosen(nodes, reranking.rerank(self.embed_model.core(), query, candidates, **how))
        return best

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, how = self._asked(query_bundle)
        with self._event(nodes, query_bundle) as best:
            candidates: list[Item] = [carried_by_document(embedding_text(one.node))[0] for one in nodes]
            best += _chosen(nodes, await reranking.arerank(await self.embed_model.acore(), query, candidates, **how))
        return best

    def _asked(self, bundle: QueryBundle | None) -> tuple[Item, dict[str, Any]]:
        """The query, and how to rank by it."""
        if bundle is None:
            raise InputError("the query is missing: pass query_bundle or query_str")
        if bundle.custom_embedding_strs is not None or bundle.image_path is not None:
            raise InputError(
                "the reranker compares with one query of words, audio or both: leave custom_embedding_strs and "
                "image_path out, or rerank by a bundle of its own"
            )
        given = isinstance(bundle, AudioQueryBundle) and bundle.is_of_another
        if given or isinstance(bundle.embedding, ExampleVector):
            raise InputError(
                "the query is a vector, and the reranker embeds it again with the nodes: pass what the vector is of, "
                "AudioQueryBundle(question, audio=…)"
            )
        query: Item = bundle.query_str
        question, instruction = self.question, self.instruction
        if isinstance(bundle, AudioQueryBundle):
            query, instruction = bundle.item, bundle.instruction or instruction
        if question is None and not isinstance(query, AudioText):
            question = self.embed_model.document_question
        return query, {
            "question": question,
            "instruction": instruction or self.embed_model.query_instruction,
            "document_instruction": self.embed_model.text_instruction,
            "top_n": self.top_n,
        }

    @contextmanager
    def _event(self, nodes: list[NodeWithScore], bundle: QueryBundle | None) -> Iterator[list[NodeWithScore]]:
        """LlamaIndex's event around the work, which puts its result into the list."""
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.embed_model.model_name,
            EventPayload.QUERY_STR: "" if bundle is None else bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        best: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield best
            event.on_end(payload={EventPayload.NODES: best})


def _chosen(nodes: list[NodeWithScore], ranking: list[Ranked]) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[ranked.index].node, score=ranked.score) for ranked in ranking]
