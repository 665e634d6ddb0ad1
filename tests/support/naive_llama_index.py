"""The wrapper that one writes first: it falls into every trap. For showing that the tests of the traps can fail."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import Document, MediaResource, Node, QueryBundle

from alm2vec_integrations import AudioClip


class NaiveEmbedding(BaseEmbedding):
    """An embedding that takes a string for a path where there is such a file."""

    _encoder: Any = PrivateAttr()
    _instruction: Any = PrivateAttr()

    def __init__(self, encoder, instruction=None, **fields):
        super().__init__(model_name="naive", **fields)
        self._encoder, self._instruction = encoder, instruction

    def with_instructions(self, query=None):
        """A copy, by pydantic's own means, which take any name."""
        return self.model_copy(update={"instruction": query})

    def _item(self, text):
        if not text:
            return "nothing"  # as a model does that has a vector for an empty text; the core refuses to
        return AudioClip(text) if Path(text).is_file() else text

    def _get_query_embedding(self, query):
        return self._encoder.encode_query(self._item(query), instruction=self._instruction).tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text):
        return self._encoder.encode_document(self._item(text), instruction=self._instruction).tolist()


class NaiveAudioNode(Node):
    """A node of a class of its own."""

    @classmethod
    def class_name(cls):
        return "NaiveAudioNode"


@dataclass
class NaiveQueryBundle(QueryBundle):
    """A query by a recording."""

    audio: Any = None
    instruction: Any = None

    @property
    def embedding_strs(self):
        return [str(self.audio)] if self.audio else [self.query_str]


def documents(paths):
    """Recordings as LlamaIndex's audio documents."""
    return [
        Document(
            id_=str(path), audio_resource=MediaResource(path=path), extra_info={"file_path": str(path)}
        )
        for path in paths
    ]  # fmt: skip


def nodes(paths):
    """Recordings as nodes."""
    return [
        NaiveAudioNode(audio_resource=MediaResource(path=path), text_resource=MediaResource(text="")) for path in paths
    ]
