"""Recordings in LlamaIndex's stock index over its own store, Chroma and Qdrant, with the model that knows them."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import llama_index_stores
import pytest
from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex
from llama_index.core.schema import Document, Node
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from alm2vec_integrations import QUESTIONS, ALM2VecEncoder, AudioClip
from alm2vec_integrations.llama_index import (
    ALM2VecEmbedding,
    AudioNode,
    AudioNodeParser,
    AudioQueryBundle,
    AudioReader,
)

BACKGROUND, MAIN_SOUND = QUESTIONS["background"], "What is the main sound?"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def embedding(tiny, library):
    return ALM2VecEmbedding(model_name="alm2vec-tiny", device="cpu", allowed_audio_roots=library[0].parent)


@pytest.fixture(params=["simple", "chroma", "qdrant"])
def kind(request):
    for module in llama_index_stores.NEEDS[request.param]:
        pytest.importorskip(module)
    return request.param


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(kind, folder):
    with llama_index_stores.opened(kind, folder) as store:
        yield store


@pytest.fixture
def index(store, embedding, library):
    """All recordings but the first, by which they are looked for, and a text."""
    return indexed(store, embedding, library[1:])


def read(paths):
    return SimpleDirectoryReader(input_files=paths, file_extractor={".flac": AudioReader()}).load_data()


def indexed(store, embedding, paths):
    return VectorStoreIndex.from_documents(
        [*read(paths), Document(text="quarterly earnings of the shipping company", id_="note")],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
        transformations=[AudioNodeParser()],
    )


def names(hits):
    return [Path(hit.metadata["file_path"]).stem if "file_path" in hit.metadata else hit.node.text for hit in hits]


def found(index, query, k=1, **how):
    return names(index.as_retriever(similarity_top_k=k, **how).retrieve(query))


class TestRetrieval:
    def test_by_text_clip_and_clip_with_question(self, index, library):
        """And two questions swap the first hit, sync and async."""
        assert found(index, "a church bell in the wind") == ["church bell over wind"]
        assert found(index, AudioQueryBundle(audio=library[1])) == ["dog over piano"]
        for question, right in ((BACKGROUND, "knock over rain"), (MAIN_SOUND, "dog over piano")):
            assert found(index, AudioQueryBundle(question, audio=library[0])) == [right]

    def test_two_instructions_swap_the_first_hit(self, index, embedding, library):
        """Of the query, and of the retriever's own embedding."""
        for instruction, right in (
            ("Represent the audio by the background noise.", "knock over rain"),
            ("Represent the main sound.", "dog over piano"),
        ):
            assert found(index, AudioQueryBundle(audio=library[0], instruction=instruction)) == [right]
            own = embedding.with_instructions(query=instruction)
            assert found(index, AudioQueryBundle(audio=library[0]), embed_model=own) == [right]

    def test_vectors_given_by_the_caller(self, index, embedding, library):
        """LlamaIndex's own bundle takes them."""
        from llama_index.core.schema import QueryBundle

        for question, right in ((BACKGROUND, "knock over rain"), (MAIN_SOUND, "dog over piano")):
            vector = embedding.get_audio_query_embedding(library[0], question)
            assert found(index, QueryBundle(question, embedding=vector)) == [right]

    def test_texts_among_recordings(self, index):
        """One space."""
        assert found(index, "quarterly earnings of the shipping company") == [
            "quarterly earnings of the shipping company"
        ]

    def test_filters(self, index):
        """On metadata."""
        filters = MetadataFilters(filters=[MetadataFilter(key="file_name", value="cat over guitar.flac")])
        assert found(index, "a church bell in the wind", k=9, filters=filters) == ["cat over guitar"]

    def test_what_comes_back_holds_its_recording(self, index, library):
        """As a plain node that can be embedded again."""
        (hit,) = index.as_retriever(similarity_top_k=1).retrieve("a church bell in the wind")
        assert type(hit.node) is Node
        assert hit.node.audio_resource.path == library[-1]
        assert hit.node.text_resource.text == ""


class TestChanges:
    def test_inserted_nodes(self, index, library):
        """Beside what is there; the same once more is still one."""
        index.insert_nodes([AudioNode.from_clip(library[0])])
        assert found(index, AudioQueryBundle(audio=library[0]), k=2)[0] == "dog over rain"

    def test_deleting_a_document(self, index, library):
        """Takes all of its nodes."""
        index.delete_ref_doc(read([library[-1]])[0].id_, delete_from_docstore=True)
        assert "church bell over wind" not in found(index, "a church bell in the wind", k=9)
        assert len(found(index, "a church bell in the wind", k=9)) == 6

    def test_refreshing(self, store, embedding, library, tmp_path):
        """A recording made anew replaces the one before, and others are left alone."""
        paths = [tmp_path / "calls" / path.name for path in library[-2:]]
        paths[0].parent.mkdir()
        for path, source in zip(paths, library[-2:], strict=True):
            path.write_bytes(source.read_bytes())
        index = indexed(store, embedding.model_copy(update={"allowed_audio_roots": str(paths[0].parent)}), paths)
        assert index.refresh_ref_docs(read(paths)) == [False, False]
        paths[1].write_bytes(library[3].read_bytes())  # a cat over a guitar, where the bell was
        assert index.refresh_ref_docs(read(paths)) == [False, True]
        hits = index.as_retriever(similarity_top_k=9).retrieve("a cat meowing over guitar music")
        assert Path(hits[0].metadata["file_path"]) == paths[1]
        assert len(hits) == 3

    def test_segments(self, store, embedding, library):
        """Are found by what is heard in them, with their times."""
        index = VectorStoreIndex.from_documents(
            read(library[:1]),
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=embedding,
            transformations=[AudioNodeParser(segment_seconds=2)],
        )
        (hit,) = index.as_retriever(similarity_top_k=1).retrieve(
            AudioQueryBundle(audio=AudioClip(library[0], start_seconds=2, end_seconds=4))
        )
        assert (hit.metadata["start_seconds"], hit.metadata["end_seconds"]) == (2.0, 4.0)


RELOAD = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import llama_index_stores
from alm2vec_integrations.llama_index import ALM2VecEmbedding, AudioQueryBundle
kind, folder, library = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
embedding = ALM2VecEmbedding.from_dict(json.loads(sys.argv[5]), allowed_audio_roots=library.parent, device="cpu")
with llama_index_stores.opened(kind, folder) as store:
    index = llama_index_stores.reloaded(store, folder, embedding)
    retriever = index.as_retriever(similarity_top_k=1)
    queries = ["a church bell in the wind", *(AudioQueryBundle(q, audio=library) for q in sys.argv[6:])]
    nodes = [retriever.retrieve(query)[0].node for query in queries]
    print(json.dumps([node.audio_resource.path.stem for node in nodes]))
    again = embedding(nodes[:1])[0]
    print(json.dumps(again.embedding))
"""


def test_reloading_in_another_process(kind, folder, embedding, library, tiny):
    """Finds the same, and embeds what it finds the same; the embedding comes back from its dump."""
    with llama_index_stores.opened(kind, folder) as store:
        index = indexed(store, embedding, library[1:])
        if kind == "simple":
            index.storage_context.persist(str(folder))
    arguments = [str(ROOT / "support"), kind, str(folder), str(library[0]), embedding.to_json(), BACKGROUND, MAIN_SOUND]
    done = subprocess.run([sys.executable, "-P", "-c", RELOAD, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hits, vector = map(json.loads, done.stdout.splitlines()[-2:])
    assert hits == ["church bell over wind", "knock over rain", "dog over piano"]
    assert vector == tiny.encode_document(AudioClip(library[-1])).tolist()


async def test_qdrants_async_client(embedding, library):
    """Inserted, found, deleted without a synchronous client."""
    pytest.importorskip("qdrant_client")
    pytest.importorskip("llama_index.vector_stores.qdrant")
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient

    client = AsyncQdrantClient(location=":memory:")
    store = QdrantVectorStore("calls", aclient=client)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    await index.ainsert_nodes(await AudioNodeParser().acall(read(library[1:])))
    retriever = index.as_retriever(similarity_top_k=1)
    for question, right in ((BACKGROUND, "knock over rain"), (MAIN_SOUND, "dog over piano")):
        assert names(await retriever.aretrieve(AudioQueryBundle(question, audio=library[0]))) == [right]
    assert names(await retriever.aretrieve("a church bell in the wind")) == ["church bell over wind"]
    await index.adelete_ref_doc(read([library[-1]])[0].id_)
    assert names(await retriever.aretrieve("a church bell in the wind")) != ["church bell over wind"]
    await client.close()


async def test_a_hundred_retrievals_at_once(embedding, library, tiny):
    """Each gets its own answer, and the event loop stays free."""
    index = VectorStoreIndex(
        [AudioNode.from_clip(path) for path in library[1:]], embed_model=embedding, use_async=False
    )
    retriever = index.as_retriever(similarity_top_k=1)
    kinds = [
        ("a church bell in the wind", "church bell over wind"),
        ("a cat meowing over guitar music", "cat over guitar"),
        (AudioQueryBundle(BACKGROUND, audio=library[0]), "knock over rain"),
        (AudioQueryBundle(MAIN_SOUND, audio=library[0]), "dog over piano"),
    ]
    longest, done = 0.0, False

    async def watch():
        nonlocal longest
        loop = asyncio.get_running_loop()
        while not done:
            before = loop.time()
            await asyncio.sleep(0.005)
            longest = max(longest, loop.time() - before)

    watching = asyncio.create_task(watch())
    loop = asyncio.get_running_loop()
    began = loop.time()
    hits = await asyncio.gather(*(retriever.aretrieve(kinds[i % 4][0]) for i in range(100)))
    took, done = loop.time() - began, True
    await watching
    assert [names(hit) for hit in hits] == [[kinds[i % 4][1]] for i in range(100)]
    assert longest < took / 4


def test_the_check_of_the_loop_can_fail(embedding, library, monkeypatch):
    """A retrieval that embeds on the loop holds it for as long as it takes."""

    def blocking(self, items, **how):
        async def encoded():
            return self.encode(items, **how)

        return encoded()

    monkeypatch.setattr(ALM2VecEncoder, "aencode", blocking)
    with pytest.raises(AssertionError):
        asyncio.run(test_a_hundred_retrievals_at_once(embedding, library, None))
