"""ALM2Vec's embedders for Haystack."""

from .document_embedder import ALM2VecDocumentEmbedder
from .query_embedder import ALM2VecQueryEmbedder
from .text_embedder import ALM2VecTextEmbedder

__all__ = ["ALM2VecDocumentEmbedder", "ALM2VecQueryEmbedder", "ALM2VecTextEmbedder"]
