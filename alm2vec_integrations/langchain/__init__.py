"""ALM2Vec for LangChain."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .._extras import require

require("langchain_core", "langchain")

if TYPE_CHECKING:
    from .chat import to_audio_block as to_audio_block
    from .chat import to_audio_message as to_audio_message
    from .documents import AudioBlobParser as AudioBlobParser
    from .documents import AudioLoader as AudioLoader
    from .documents import audio_key_encoder as audio_key_encoder
    from .embeddings import ALM2VecEmbeddings as ALM2VecEmbeddings
    from .queries import Query as Query
    from .reranker import ALM2VecReranker as ALM2VecReranker
    from .retriever import ALM2VecRetriever as ALM2VecRetriever

# Imported when they are asked for: LangChain's loaders import its text splitters where those are installed, and these,
# at 1.0, sentence-transformers with torch.
_HOME_OF = {
    "ALM2VecEmbeddings": "embeddings",
    "ALM2VecReranker": "reranker",
    "ALM2VecRetriever": "retriever",
    "AudioBlobParser": "documents",
    "AudioLoader": "documents",
    "Query": "queries",
    "audio_key_encoder": "documents",
    "to_audio_block": "chat",
    "to_audio_message": "chat",
}

__all__ = [
    "ALM2VecEmbeddings",
    "ALM2VecReranker",
    "ALM2VecRetriever",
    "AudioBlobParser",
    "AudioLoader",
    "Query",
    "audio_key_encoder",
    "to_audio_block",
    "to_audio_message",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
