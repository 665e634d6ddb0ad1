"""LangChain's caches of vectors: told apart by what makes other ones, and refused where they would mix up queries."""

import asyncio

import fake_checkpoints
import numpy as np
import pytest
import torch
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from alm2vec_integrations import DOC_INSTRUCTION, ALM2VecEncoder, AudioClip, InputError
from alm2vec_integrations.langchain import ALM2VecEmbeddings, ALM2VecRetriever


@pytest.fixture
def embeddings(fake, clips):
    return ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent)


@pytest.fixture
def cache():
    pytest.importorskip("langchain_classic")
    return InMemoryByteStore()


def backed_by(embeddings, cache, **keywords):
    from langchain_classic.embeddings import CacheBackedEmbeddings

    return CacheBackedEmbeddings.from_bytes_store(
        embeddings, cache, namespace=embeddings.cache_namespace, key_encoder="sha256", **keywords
    )


def test_one_namespace_for_each_kind_of_document_vector(fake, embeddings):
    """It changes with what changes document vectors, and with nothing else; nothing is loaded for it."""
    same = [
        embeddings,
        ALM2VecEmbeddings(model=fake, trust_remote_code=True),
        embeddings.with_instructions(query="x"),
        embeddings.with_instructions(document=DOC_INSTRUCTION),
        embeddings.model_copy(update={"show_progress": True}),
    ]
    assert len({one.cache_namespace for one in same}) == 1
    others = [
        embeddings.with_instructions(document="x"),
        *(embeddings.model_copy(update=update) for update in (
            {"model_name": "alm2vec-tiny"}, {"revision": "v1"}, {"document_task": "query"}, {"normalize": False},
            {"document_question": "who?"}, {"document_question": "what?"}, {"dtype": "bfloat16"},
            {"dtype": "float32"}, {"model_kwargs": {"a": 1}}, {"model_kwargs": {"a": 2}},
        )),
    ]  # fmt: skip
    assert len({one.cache_namespace for one in [embeddings, *others]}) == 1 + len(others)
    assert fake_checkpoints.loads == []
    # LangChain's file store takes these characters only.
    assert set(embeddings.cache_namespace) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_an_encoder_that_was_put_in_says_for_itself(fake, encoder, embeddings):
    assert ALM2VecEmbeddings(encoder=encoder).cache_namespace == embeddings.cache_namespace
    other = ALM2VecEncoder(fake, trust_remote_code=True, document_instruction="x")
    expected = embeddings.with_instructions(document="x").cache_namespace
    assert ALM2VecEmbeddings(encoder=other).cache_namespace == expected
    cast = ALM2VecEncoder(fake, trust_remote_code=True, dtype="bfloat16")
    expected = embeddings.with_settings(dtype="bfloat16").cache_namespace
    assert ALM2VecEmbeddings(encoder=cast).cache_namespace == expected != embeddings.cache_namespace


def test_what_is_not_json_counts_by_its_text(embeddings):
    one, two = (embeddings.with_settings(model_kwargs={"x": x}) for x in (torch.float16, torch.float32))
    assert one.cache_namespace != two.cache_namespace


def test_documents_are_embedded_once(embeddings, cache, clips):
    """Again for another instruction, and again when a file's bytes change."""
    reference = AudioClip(clips[0]).reference()
    vectors = [backed_by(embeddings, cache).embed_documents([reference]) for _ in range(2)]
    assert vectors[0] == vectors[1]
    count = len(fake_checkpoints.calls)
    other = backed_by(embeddings.with_instructions(document="x"), cache).embed_documents([reference])
    assert other != vectors[0]
    assert len(fake_checkpoints.calls) == count + 1
    clips[0].write_bytes(clips[1].read_bytes())
    assert backed_by(embeddings, cache).embed_documents([AudioClip(clips[0]).reference()]) != vectors[0]


def test_a_cache_of_documents_passes_queries_on(embeddings, cache):
    store = InMemoryVectorStore(backed_by(embeddings, cache))
    store.add_texts(["a", "b"])
    fake_checkpoints.calls.clear()
    assert ALM2VecRetriever(vectorstore=store).invoke("a", instruction="i")
    assert [(call["text"], call["task"], call["instruction"]) for call in fake_checkpoints.calls] == [
        (["a"], "query", "i")
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cache_of_queries_is_refused(embeddings, cache, clips, asynchronous):
    """Warm, it serves the vector of the same text's document; cold, it would keep a clip's vector as the text's."""
    backed = backed_by(embeddings, cache, query_embedding_cache=True)
    store = InMemoryVectorStore(backed)
    store.add_texts(["warm"])
    assert np.allclose(backed.embed_query("warm"), embeddings.embed_documents(["warm"])[0])
    retriever = ALM2VecRetriever(vectorstore=store)
    keys = list(cache.yield_keys())
    for query in ("warm", "cold", {"text": "cold", "instruction": "i"}, {"text": "cold", "audio": clips[0]}):
        with pytest.raises(InputError, match=r"CacheBackedEmbeddings keeps .*without query_embedding_cache"):
            asyncio.run(retriever.ainvoke(query)) if asynchronous else retriever.invoke(query)
    assert list(cache.yield_keys()) == keys
    assert np.allclose(backed.embed_query("cold"), embeddings.embed_query("cold"))


def test_wherever_it_is(embeddings, cache):
    """In a cache of its own, below a cache of documents."""
    from langchain_classic.embeddings import CacheBackedEmbeddings

    below = backed_by(embeddings, cache, query_embedding_cache=InMemoryByteStore())
    backed = CacheBackedEmbeddings.from_bytes_store(below, cache, namespace="x", key_encoder="sha256")
    with pytest.raises(InputError, match="without query_embedding_cache"):
        ALM2VecRetriever(vectorstore=InMemoryVectorStore(backed)).invoke("q")


def test_a_cache_that_does_not_show_is_noticed_when_it_answers(embeddings):
    class Own(ALM2VecEmbeddings):
        def embed_query(self, text, **keywords):
            return [0.0] * fake_checkpoints.DIM

    own = Own(**embeddings.model_dump())
    with pytest.raises(InputError, match=r"did not ask .*no cache of queries"):
        ALM2VecRetriever(vectorstore=InMemoryVectorStore(own)).invoke("q")
