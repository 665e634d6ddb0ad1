"""`AudioAsText`: audio nodes as texts that name their recordings, for what leaves out all but texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, Document, MetadataMode, TextNode, TransformComponent
from pydantic import ConfigDict

from ..errors import InputError
from .item_text import clip_in
from .nodes import clip_of_node, unparsed, with_keys

_KIND_KEY = "audio_as_text"
"""Metadata: without it LlamaIndex's caches would take a node with a caption and its text for the same."""


class AudioAsText(TransformComponent):
    """Makes texts of audio nodes, for indexes such as `MultiModalVectorStoreIndex`, which leave all others out.

    `ALM2VecEmbedding` and `ALM2VecRerank` open the recording that such a text's metadata name, inside
    `allowed_audio_roots`, and embed that. Everything else takes it for its caption, or for its path where it has none:
    no LLM gets the recording. Other nodes pass. It belongs after `AudioNodeParser`, or is called with nodes.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "AudioAsText"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:  # noqa: ARG002 - indexes pass theirs
        """The nodes, in their order, with the same ids, links and vectors.

        Raises:
            InputError: as for `ALM2VecEmbedding`; a document that no `AudioNodeParser` has made nodes of; a node whose
                metadata do not name its recording, as it was not made by `AudioNode` or has been changed.
        """
        return [_as_text(node) for node in nodes]


def _as_text(node: BaseNode) -> BaseNode:
    clip = clip_of_node(node)
    if clip is None:
        return node
    if isinstance(node, Document):
        raise unparsed(node)
    text = TextNode(
        id_=node.node_id,
        text=node.get_content(metadata_mode=MetadataMode.NONE) or str(clip.path),
        embedding=node.embedding,
        metadata={**node.metadata, _KIND_KEY: True},
        excluded_embed_metadata_keys=with_keys(node.excluded_embed_metadata_keys, _KIND_KEY),
        excluded_llm_metadata_keys=with_keys(node.excluded_llm_metadata_keys, _KIND_KEY),
        metadata_separator=node.metadata_separator,
        metadata_template=node.metadata_template,
        text_template=getattr(node, "text_template", TextNode.model_fields["text_template"].default),
        relationships=node.relationships,
    )
    if clip_in(text.get_content(metadata_mode=MetadataMode.EMBED)) != clip:
        raise InputError(
            f"its metadata do not name {clip.name}: make nodes by AudioNodeParser or AudioNode.from_clip, and leave "
            "what they put there",
            source=f"node {node.node_id}",
        )
    return text
