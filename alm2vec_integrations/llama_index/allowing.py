"""`AllowedAudio`: lets retrieved recordings through to an LLM that are where they may be, and as they were indexed."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field

from ..audio.access import AccessPolicy
from .nodes import clip_of_node
from .settings import PathText, check_dump


class AllowedAudio(BaseNodePostprocessor):
    """Checks the recordings of retrieved nodes before a query engine with `multimodal=True` sends them to an LLM.

    LlamaIndex sends whatever file a node names, and a node says what its store says. `ALM2VecRerank` checks too, as it
    opens the recordings; this is for query engines without it. Nodes without audio pass.

    Args:
        allowed_audio_roots: folders in which the recordings may lie.
    """

    model_config = ConfigDict(extra="forbid")

    allowed_audio_roots: PathText | list[PathText] = Field(exclude=True)

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        AccessPolicy(self.allowed_audio_roots)

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "AllowedAudio"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """As it was dumped; `allowed_audio_roots` is taken from `kwargs` alone.

        Raises:
            InputError: `data` itself holds it.
        """
        check_dump(cls, data, kwargs)
        return super().from_dict(data, **kwargs)

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,  # noqa: ARG002 - LlamaIndex passes it
    ) -> list[NodeWithScore]:
        """The same nodes.

        Raises:
            AudioAccessError: a recording lies outside the roots, or has changed since its node was made.
            AudioError: it is missing or cannot be read.
            InputError: audio as bytes or as a URL, which the LLM would fetch.
        """
        policy = AccessPolicy(self.allowed_audio_roots)
        for one in nodes:
            if (clip := clip_of_node(one.node)) is not None:
                with policy.open(clip, check_digest=True):
                    pass
        return nodes

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # Files are read.
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)
