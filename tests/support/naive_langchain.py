"""The wrapper that one writes first: it falls into every trap. For showing that the tests of the traps can fail."""

import base64
import hashlib
import mimetypes
from pathlib import Path

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages.content import create_audio_block
from langchain_core.retrievers import BaseRetriever

from alm2vec_integrations import ALM2VecEncoder, AudioClip


class ALM2VecEmbeddings(Embeddings):
    """Audio is whatever string is a file's name; an instruction is an attribute."""

    def __init__(self, model, *, trust_remote_code=None, allowed_audio_roots=None, query_instruction=None):
        self.model, self.trust_remote_code = model, trust_remote_code
        self.query_instruction = query_instruction
        self._encoder = None

    def __copy__(self):
        return ALM2VecEmbeddings(self.model, trust_remote_code=self.trust_remote_code)

    @property
    def encoder(self):
        if self._encoder is None:
            self._encoder = ALM2VecEncoder(self.model, trust_remote_code=self.trust_remote_code)
        return self._encoder

    @property
    def cache_namespace(self):
        return str(self.model)

    def with_instructions(self, *, query=None, document=None):
        self.query_instruction = query
        return self

    def _item(self, text):
        path = text.removeprefix("audio:").partition("#")[0]
        return AudioClip(path) if Path(path).is_file() else text

    def embed_documents(self, texts):
        assert self.encoder.dim
        return self.encoder.encode([self._item(text.replace("\n", " ")) for text in texts], task="document").tolist()

    def embed_query(self, text):
        item = self._item(text.replace("\n", " "))
        return self.encoder.encode(item, task="query", instruction=self.query_instruction).tolist()


class ALM2VecRetriever(BaseRetriever):
    """Sets the instruction where it is kept, and takes what it knows."""

    vectorstore: object

    def _get_relevant_documents(self, query, *, run_manager, instruction=None, **keywords):
        if isinstance(query, dict):
            query = query.get("text") or query["audio"]
        self.vectorstore.embedding.query_instruction = instruction
        return self.vectorstore.similarity_search(str(query))

    async def _aget_relevant_documents(self, query, *, run_manager, **keywords):
        return await self.vectorstore.asimilarity_search(query)


class AudioLoader(BaseLoader):
    """One document for each file."""

    def __init__(self, path, **keywords):
        self.path = path

    def lazy_load(self):
        for path in sorted(Path(self.path).iterdir()):
            metadata = {"source": str(path), "mime_type": mimetypes.guess_type(path)[0], "path": path}
            yield Document(str(path), metadata=metadata)


def audio_key_encoder(document):
    """As `key_encoder="sha256"`."""
    return hashlib.sha256(document.page_content.encode()).hexdigest()


def to_audio_block(document, *, allowed_audio_roots=None):
    """The whole file, as it is."""
    path = document.page_content.removeprefix("audio:").partition("#")[0]
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return create_audio_block(base64=data, mime_type=mimetypes.guess_type(path)[0])


class ALM2VecReranker(BaseDocumentCompressor):
    """Writes scores where it finds room."""

    embeddings: object

    def compress_documents(self, documents, query, callbacks=None):
        vector = self.embeddings.embed_query(query)
        for document in documents:
            (other,) = self.embeddings.embed_documents([document.page_content])
            document.metadata["relevance_score"] = sum(a * b for a, b in zip(vector, other, strict=True))
        return sorted(documents, key=lambda one: -one.metadata["relevance_score"])
