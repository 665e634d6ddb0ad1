"""Vector stores for LlamaIndex that keep what they hold in a folder, opened and closed again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage

NEEDS = {
    "simple": (),
    "chroma": ("chromadb", "llama_index.vector_stores.chroma"),
    "qdrant": ("qdrant_client", "llama_index.vector_stores.qdrant"),
}
"""What has to be installed for each."""


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Any]:
    """The store in a folder, empty if the folder is new."""
    if kind == "simple":
        from llama_index.core.vector_stores import SimpleVectorStore

        yield SimpleVectorStore()
    elif kind == "chroma":
        import chromadb
        from llama_index.vector_stores.chroma import ChromaVectorStore

        client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        yield ChromaVectorStore(client.get_or_create_collection("calls", metadata={"hnsw:space": "cosine"}))
    else:
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(folder))
        try:
            yield QdrantVectorStore("calls", client=client)
        finally:
            client.close()


def reloaded(store: Any, folder: Path, embedding: Any) -> VectorStoreIndex:
    """The index that an earlier process left in `folder`."""
    if not store.stores_text:
        return load_index_from_storage(StorageContext.from_defaults(persist_dir=str(folder)), embed_model=embedding)
    return VectorStoreIndex.from_vector_store(store, embed_model=embedding)
