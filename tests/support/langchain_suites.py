"""LangChain's official test suites over our classes; `test_langchain_suites.py` runs them and counts."""

import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from alm2vec_integrations.langchain import ALM2VecEmbeddings, ALM2VecRetriever

TINY = {"model": "alm2vec-tiny", "device": "cpu"}


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return ALM2VecEmbeddings

    @property
    def embedding_model_params(self):
        return TINY

    @property
    def init_from_env_params(self):
        return {"HF_TOKEN": "hf_secret"}, TINY, {"token": "hf_secret"}


class TestEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return ALM2VecEmbeddings

    @property
    def embedding_model_params(self):
        return TINY


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return ALM2VecRetriever

    @property
    def retriever_constructor_params(self):
        texts = ["a dog", "rain", "a cat", "wind", "a man speaking"]
        return {"vectorstore": InMemoryVectorStore.from_texts(texts, ALM2VecEmbeddings(**TINY))}

    @property
    def retriever_query_example(self):
        return "an animal"


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tiny):
        return InMemoryVectorStore(self.get_embeddings())

    @staticmethod
    def get_embeddings():
        return ALM2VecEmbeddings(**TINY)
