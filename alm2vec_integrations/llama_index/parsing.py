"""`AudioNodeParser`: audio documents to audio nodes, whole or in segments; texts go to a text splitter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.node_parser.node_utils import default_id_func
from llama_index.core.schema import BaseNode, MediaResource, Node, NodeRelationship, TransformComponent
from llama_index.core.utils import get_tqdm_iterable
from pydantic import ConfigDict, Field, SerializeAsAny

from ..audio.access import AccessPolicy, file_digest
from ..audio.decoding import measure
from ..audio.segmenting import segment
from ..clips import AudioClip
from ..errors import InputError
from .nodes import DIGEST_KEY, AudioNode, check_recognisable, clip_of_node, node_id, part_metadata
from .reading import AudioDocument
from .settings import PathText, check_dump


class AudioNodeParser(NodeParser):
    """Makes `AudioNode`s of audio documents, and hands everything else to a text splitter.

    Every node names its document as its source and takes over the document's metadata and text, which is the caption.
    Its id follows from the document's id, its times and the file's digest. Headers are read; nothing is decoded.

    Args:
        segment_seconds: cut recordings into parts of this length; None makes one node of each.
        hop_seconds: from the beginning of one part to that of the next; `segment_seconds` if None.
        min_seconds: the shortest rest that is a part of its own.
        text_splitter: for documents and nodes without audio; None is LlamaIndex's `SentenceSplitter()`.
        allowed_audio_roots: folders in which the recordings of documents and nodes from a store may be opened; what
            this program has read (`AudioReader`) or made (`AudioNode`) may be opened anyway.
    """

    model_config = ConfigDict(extra="forbid")

    segment_seconds: float | None = None
    hop_seconds: float | None = None
    min_seconds: float = 1.0
    text_splitter: SerializeAsAny[TransformComponent] | None = None
    allowed_audio_roots: PathText | list[PathText] | None = Field(default=None, exclude=True)

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        AccessPolicy(self.allowed_audio_roots)
        if self.segment_seconds is None:
            if self.hop_seconds is not None:
                raise InputError("hop_seconds belongs to segments: pass segment_seconds too")
        else:
            segment("any", **self._lengths())  # looks at the lengths, and at nothing else before it is asked for more

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "AudioNodeParser"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The parser that `to_dict` dumped.

        Args:
            data: what `to_dict` gave.
            kwargs: more fields, and others than those in `data`: `allowed_audio_roots` is part of no dump, and an
                `id_func` or a `text_splitter` of one's own only by name.

        Raises:
            InputError: `data` itself holds the first, or names one of the others, which `kwargs` lack.
        """
        check_dump(cls, data, kwargs)
        own = cls(text_splitter=None).to_dict()
        for name in ("id_func", "text_splitter"):
            if name not in kwargs and data.get(name, own[name]) != own[name]:
                raise InputError(f"a stored configuration only names its {name}: pass it to from_dict as a keyword")
        return super().from_dict({name: data[name] for name in data if name != "id_func"}, **kwargs)

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        """Nodes in the order of `nodes`; of `kwargs`, indexes pass those of their own on, which mean nothing here.

        Raises:
            InputError: bytes or a URL instead of a path; a recording that LlamaIndex's caches could not tell
                from others.
            AudioError: a recording cannot be opened.
            AudioAccessError: a recording of a document from a store, outside `allowed_audio_roots`.
        """
        parsed: list[BaseNode] = []
        splitter = self.text_splitter
        for node in get_tqdm_iterable(nodes, show_progress, "Parsing nodes"):
            clip = clip_of_node(node)
            if clip is None:
                # Made only where it is needed: it loads a tokenizer, and one that was pickled downloads it.
                splitter = splitter or SentenceSplitter()
                parsed += splitter([node], **kwargs)
            else:
                check_recognisable(node, clip)
                parsed += self._audio_nodes(node, clip)
        return parsed

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        # Files are read.
        return await asyncio.to_thread(self._parse_nodes, nodes, show_progress=show_progress, **kwargs)

    def _postprocess_parsed_nodes(self, nodes: list[BaseNode], parent_doc_map: dict[str, Any]) -> list[BaseNode]:
        # LlamaIndex searches a parent's `text`, which audio nodes have not.
        with_text = {key: parent for key, parent in parent_doc_map.items() if hasattr(parent, "text")}
        return super()._postprocess_parsed_nodes(nodes, with_text)

    def _audio_nodes(self, node: Node, clip: AudioClip) -> Iterator[AudioNode]:
        if isinstance(node, (AudioDocument, AudioNode)):
            clip = replace(clip, is_reference=False)
        kind = None if node.audio_resource is None else node.audio_resource.mimetype
        # A node's nodes are of the same document, as LlamaIndex has it.
        source = {NodeRelationship.SOURCE: node.source_node or node.as_related_node_info()}
        for index, part in enumerate(self._parts(clip)):
            digest = part.digest or file_digest(str(part.path))
            inherited = node.metadata if self.include_metadata else {}
            metadata = {**inherited, **part_metadata(part), DIGEST_KEY: digest}
            made = default_id_func is self.id_func
            yield AudioNode(
                id_=node_id(node.node_id, part, metadata) if made else self.id_func(index, node),
                audio_resource=MediaResource(path=Path(str(part.path)), mimetype=kind),
                text_resource=MediaResource(text=node.get_content()),
                metadata=metadata,
                excluded_embed_metadata_keys=node.excluded_embed_metadata_keys,
                excluded_llm_metadata_keys=node.excluded_llm_metadata_keys,
                metadata_separator=node.metadata_separator,
                metadata_template=node.metadata_template,
                text_template=node.text_template,
                relationships=dict(source),
            )

    def _parts(self, clip: AudioClip) -> Iterator[AudioClip]:
        """The clips of the nodes; their recording may be opened, and can be."""
        if self.segment_seconds is None:
            measure(clip, AccessPolicy(self.allowed_audio_roots))
            yield clip
        else:
            yield from segment(clip, allowed_audio_roots=self.allowed_audio_roots, **self._lengths())

    def _lengths(self) -> dict[str, Any]:
        return {
            "segment_seconds": self.segment_seconds,
            "hop_seconds": self.hop_seconds,
            "min_seconds": self.min_seconds,
        }
