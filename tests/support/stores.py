"""LangChain's vector stores, empty, in memory, and how each is told to filter."""

import importlib.util
import uuid
from contextlib import contextmanager

import pytest

PACKAGES = {
    "InMemory": ("langchain_core",),
    "FAISS": ("langchain_community", "faiss"),
    "Chroma": ("langchain_chroma", "chromadb"),
    "Qdrant": ("langchain_qdrant", "qdrant_client"),
}


def _missing(name):
    return [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]


STORES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(_missing(name)), reason=f"not installed: {_missing(name)}"))
    for name in PACKAGES
]
with_each_store = pytest.mark.parametrize("name", STORES)


@contextmanager
def empty(name, embeddings, dim):
    """The store of that name, without documents, for vectors of that width."""
    if name == "InMemory":
        from langchain_core.vectorstores import InMemoryVectorStore

        yield InMemoryVectorStore(embeddings)
    elif name == "FAISS":
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS

        yield FAISS(embeddings, faiss.IndexFlatL2(dim), InMemoryDocstore(), {})
    elif name == "Chroma":
        import chromadb
        from langchain_chroma import Chroma

        client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
        # Clients in one process share what is in memory.
        store = Chroma(uuid.uuid4().hex, embeddings, client=client, collection_metadata={"hnsw:space": "cosine"})
        yield store
        store.delete_collection()
    elif name == "Qdrant":
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        client = QdrantClient(":memory:")
        client.create_collection("sounds", models.VectorParams(size=dim, distance=models.Distance.COSINE))
        yield QdrantVectorStore(client, "sounds", embeddings)
        client.close()


def where(name, **equal):
    """A filter on metadata in the store's own form."""
    if name == "InMemory":
        return lambda document: all(document.metadata[key] == value for key, value in equal.items())
    if name == "Qdrant":
        from qdrant_client import models

        return models.Filter(
            must=[
                models.FieldCondition(key=f"metadata.{key}", match=models.MatchValue(value=value))
                for key, value in equal.items()
            ]
        )
    return equal
