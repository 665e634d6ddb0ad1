"""ALM2Vec for LangChain."""

from .._extras import require

require("langchain_core", "langchain")

from .embeddings import ALM2VecEmbeddings  # noqa: E402 - after the check that names the extra

__all__ = ["ALM2VecEmbeddings"]
