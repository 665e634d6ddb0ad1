"""Haystack's pipelines: from YAML alone, with stores, async, sharing one model."""

import asyncio
import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import fake_checkpoints
import pytest
import sounds
from haystack import Document, Pipeline
from haystack.components.evaluators import DocumentMRREvaluator, DocumentRecallEvaluator
from haystack.components.retrievers import (
    InMemoryEmbeddingRetriever,
    MultiQueryEmbeddingRetriever,
    SentenceWindowRetriever,
    TextEmbeddingRetriever,
)
from haystack.components.routers import FileTypeRouter
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice

from alm2vec_integrations import QUESTIONS, ALM2VecEncoder, InputError
from alm2vec_integrations.haystack import (
    ALM2VecDocumentEmbedder,
    ALM2VecQueryEmbedder,
    ALM2VecRanker,
    ALM2VecTextEmbedder,
    AudioFileToDocument,
    AudioSplitter,
)

ROOT = Path(__file__).resolve().parents[2]
YAML = ROOT / "examples" / "pipelines"
# Where a wheel of the package was installed by itself; the modules of the subprocess then have to come from there.
WHEEL = os.environ.get("ALM2VEC_TEST_WHEEL")
CPU = ComponentDevice.from_str("cpu")
MAIN_SOUND = "What is the main sound?"


def name_of(document):
    return Path(document.meta["file_path"]).stem


class TestFromYaml:
    def test_by_every_kind_of_query(self, library, tmp_path):
        """In a process that is given YAML only and never imports us."""
        for folder in ("recordings", "query"):
            (tmp_path / folder).mkdir()
        dog = library[0]
        shutil.copy(dog, tmp_path / "query")
        for path in library[1:]:
            shutil.copy(path, tmp_path / "recordings")
        shutil.copy(next(path for path in library if "woman" in path.name), tmp_path / "query")
        for answer in ("male", "female"):
            (tmp_path / "recordings" / f"{answer}.txt").write_text(answer)
        environment = os.environ | ({"PYTHONPATH": WHEEL} if WHEEL else {})
        done = subprocess.run(
            [sys.executable, "-P", ROOT / "tests" / "support" / "haystack_yaml.py", YAML],
            capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["written"] == 8
        assert found["text"][0] == found["nested"][0] == "church bell over wind"
        assert found["text"] == found["nested"]
        assert found["clip"][0] == "knock over rain"
        assert found["clip and question"] == found["async"] == ["female", "male"]
        assert found[QUESTIONS["background"]][0] == "knock over rain"
        assert found[MAIN_SOUND][0] == "dog over piano"
        if WHEEL:
            assert all(Path(where).is_relative_to(WHEEL) for where in found["from"])

    def test_bad_items_do_not_lose_the_run(self, library, tmp_path, monkeypatch, caplog):
        """A blank note, a file that is no recording, and one found broken late are reported, and the rest written."""
        monkeypatch.chdir(tmp_path)
        folder = Path("recordings")
        folder.mkdir()
        shutil.copy(library[0], folder / "good.flac")
        (folder / "note.txt").write_text("a note")
        (folder / "blank.txt").write_text(" \n")
        (folder / "none.flac").write_text("not a recording")
        data = library[1].read_bytes()
        middle = len(data) // 2
        (folder / "late.flac").write_bytes(data[:middle] + bytes(4000) + data[middle + 4000 :])
        pipeline = Pipeline.loads((YAML / "indexing.yaml").read_text(encoding="utf-8"))
        done = pipeline.run({"router": {"sources": sorted(folder.iterdir())}})
        assert done["writer"]["documents_written"] == 2
        unmatched = done["checked"]["unmatched"]
        assert sorted(Path(one.meta["file_path"]).name for one in unmatched) == ["blank.txt", "late.flac"]
        assert all(one.meta["alm2vec_error"] for one in unmatched)
        assert all(name in caplog.text for name in ("none.flac", "late.flac", "neither text nor audio"))

    def test_what_is_written_down_is_read_again(self):
        """Every component, and nested ones, without anything being allowed."""
        store = InMemoryDocumentStore()
        retriever = InMemoryEmbeddingRetriever(store)
        pipeline = Pipeline()
        for name, component in {
            "converter": AudioFileToDocument(),
            "splitter": AudioSplitter(root_path="calls"),
            "embedder": ALM2VecDocumentEmbedder(model="alm2vec-tiny", root_path="calls", device=CPU),
            "query": ALM2VecQueryEmbedder(model="alm2vec-tiny"),
            "ranker": ALM2VecRanker(model="alm2vec-tiny"),
            "nested": TextEmbeddingRetriever(
                retriever=retriever, text_embedder=ALM2VecTextEmbedder(model="alm2vec-tiny")
            ),
        }.items():
            pipeline.add_component(name, component)
        pipeline.connect("converter", "splitter")
        pipeline.connect("splitter", "embedder")
        assert Pipeline.loads(pipeline.dumps()).dumps() == pipeline.dumps()

    def test_the_folders_above_the_components_belong_to_nobody(self):
        """With an `__init__.py` in one of them the other packages there could not be imported."""
        for folder in ("", "components", *(f"components/{kind}" for kind in (
            "converters", "embedders", "preprocessors", "rankers"
        ))):  # fmt: skip
            assert not (ROOT / "haystack_integrations" / folder / "__init__.py").exists()
        assert importlib.util.find_spec("haystack_integrations.components.embedders").origin is None


@pytest.fixture
def settings(fake):
    return {"model": fake, "trust_remote_code": True, "device": CPU, "progress_bar": False}


class TestOneModel:
    def pipelines(self, settings, clips):
        store = InMemoryDocumentStore()
        indexing, search = Pipeline(), Pipeline()
        indexing.add_component("converter", AudioFileToDocument())
        indexing.add_component("embedder", ALM2VecDocumentEmbedder(root_path=clips[0].parent, **settings))
        indexing.add_component("writer", DocumentWriter(store))
        indexing.connect("converter", "embedder")
        indexing.connect("embedder", "writer")
        search.add_component("embedder", ALM2VecTextEmbedder(**settings))
        search.add_component("retriever", InMemoryEmbeddingRetriever(store))
        search.connect("embedder", "retriever")
        return indexing, search

    def test_two_pipelines_share_it_until_both_are_closed(self, settings, clips):
        """Loads are counted, the model dies with the last close, and a later run loads it again."""
        indexing, search = self.pipelines(settings, clips)
        indexing.run({"converter": {"sources": clips}})
        search.run({"embedder": {"text": "a"}})
        assert len(fake_checkpoints.loads) == 1
        model = weakref.ref(search.get_component("embedder")._encoder().module)
        indexing.close()
        assert model() is not None
        search.close()
        gc.collect()
        assert model() is None
        assert len(search.run({"embedder": {"text": "a"}})["retriever"]["documents"]) == 10
        assert len(fake_checkpoints.loads) == 2
        asyncio.run(search.close_async())

    def test_warming_up_a_pipeline_loads_it(self, settings, clips):
        """Once for both."""
        for pipeline in (pipelines := self.pipelines(settings, clips)):
            pipeline.warm_up()
        assert len(fake_checkpoints.loads) == 1
        for pipeline in pipelines:
            asyncio.run(pipeline.warm_up_async())
        assert len(fake_checkpoints.loads) == 1

    def test_many_queries_at_once(self, settings, clips):
        """In threads, which pass the text alone: the instruction is the component's own, and the model one."""
        store = InMemoryDocumentStore()
        with ALM2VecEncoder(settings["model"], trust_remote_code=True, device="cpu") as core:
            vector = core.encode_query("b", instruction="own").tolist()
        store.write_documents([Document(content="b", embedding=vector)])
        embedder = ALM2VecTextEmbedder(instruction="own", **settings)
        retriever = MultiQueryEmbeddingRetriever(retriever=InMemoryEmbeddingRetriever(store), query_embedder=embedder)
        for found in (retriever.run(queries=list("abc")), asyncio.run(retriever.run_async(queries=list("abc")))):
            assert max(document.score for document in found["documents"]) == pytest.approx(1.0)
        assert len(fake_checkpoints.loads) == 2  # the core's own, which was closed, and this
        assert not fake_checkpoints.overlapping.is_set()

    def test_connections_by_the_components_names(self, settings):
        """There is one output, so it is clear what is meant; a text goes to `.text` by name."""
        search = self.pipelines(settings, [Path("x")])[1]
        assert search.to_dict()["connections"] == [
            {"sender": "embedder.embedding", "receiver": "retriever.query_embedding"}
        ]


def test_a_router_hands_on_one_recording_as_the_query(settings, clips):
    """As a list of exactly one."""
    pipeline = Pipeline()
    pipeline.add_component("router", FileTypeRouter(mime_types=["audio/.*"]))
    pipeline.add_component("query", ALM2VecQueryEmbedder(**settings))
    pipeline.connect("router.audio/.*", "query.audio")
    expected = ALM2VecQueryEmbedder(**settings).run(audio=clips[0])
    assert pipeline.run({"router": {"sources": clips[:1]}})["query"] == expected
    with pytest.raises(Exception, match="exactly one, got 2"):
        pipeline.run({"router": {"sources": clips[:2]}})


def in_memory(dim):
    return InMemoryDocumentStore(), InMemoryEmbeddingRetriever


def qdrant(dim):
    pytest.importorskip("qdrant_client")
    from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(":memory:", embedding_dim=dim, recreate_index=True, return_embedding=True)
    return store, QdrantEmbeddingRetriever


def chroma(dim):
    pytest.importorskip("chromadb")
    from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
    from haystack_integrations.document_stores.chroma import ChromaDocumentStore

    # As other doors' tests have it: Chroma keeps one system for all that is in memory, and refuses other settings.
    settings = {"anonymized_telemetry": False}
    store = ChromaDocumentStore(collection_name=f"sounds-{os.urandom(8).hex()}", client_settings=settings)
    return store, ChromaEmbeddingRetriever


@pytest.mark.parametrize("make_store", [in_memory, qdrant, chroma], ids=lambda make: make.__name__)
class TestStores:
    """With placeholder content, which Chroma needs, the bundled model and its sounds."""

    @pytest.fixture
    def index(self, make_store, library, tiny):
        """Write recordings, and texts, into a new store; gives a search."""

        def index(sources, *texts, **given):
            store, retriever = make_store(tiny.dim)
            converter = AudioFileToDocument(content_placeholder="[audio]")
            splitter = AudioSplitter(root_path=library[0].parent)
            embedder = ALM2VecDocumentEmbedder(
                model="alm2vec-tiny", device=CPU, progress_bar=False, root_path=library[0].parent, **given
            )
            documents = splitter.run(documents=converter.run(sources=sources)["documents"])["documents"]
            documents += [Document(content=text) for text in texts]
            store.write_documents(embedder.run(documents=documents)["documents"])
            pipeline = Pipeline()
            pipeline.add_component("query", ALM2VecQueryEmbedder(model="alm2vec-tiny", device=CPU, progress_bar=False))
            pipeline.add_component("retriever", retriever(store))
            pipeline.connect("query", "retriever")

            def search(**query):
                return pipeline.run({"query": query})["retriever"]["documents"]

            search.store = store
            return search

        return index

    def test_every_kind_of_query(self, index, library):
        """By text, by clip, and by clip and question to its answer."""
        search = index(library[1:])
        found = search(text="a church bell in the wind")
        assert name_of(found[0]) == "church bell over wind"
        assert found[0].content == "[audio]"
        assert found[0].meta["alm2vec_kind"] == "audio"
        assert name_of(search(audio=library[0])[0]) == "knock over rain"
        answers = index([], "male", "female")
        woman = next(path for path in library if "woman" in path.name)
        found = answers(audio=woman, text=QUESTIONS["gender"])
        assert [document.content for document in found] == ["female", "male"]

    def test_a_question_swaps_the_first_hit(self, index, library):
        """Asked of both sides: by background the rain is found, by main sound the dog."""
        for question, first in ((QUESTIONS["background"], "knock over rain"), (MAIN_SOUND, "dog over piano")):
            search = index(library[1:], document_question=question, task="query")
            found = search(audio=library[0], text=question)
            assert name_of(found[0]) == first
            assert found[0].meta["alm2vec_question"] == question

    def test_a_segment_is_expanded_to_its_neighbours(self, make_store, tmp_path, tiny):
        """What is found in the middle comes with what is around it."""
        store, retriever = make_store(tiny.dim)
        path = sounds.write(tmp_path / "long.wav", sounds.noise(10.0, seed=1))
        (document,) = AudioFileToDocument(content_placeholder="[audio]").run(sources=[path])["documents"]
        splitter = AudioSplitter(segment_seconds=2, root_path=tmp_path)
        settings = {"model": "alm2vec-tiny", "device": CPU, "progress_bar": False}
        embedder = ALM2VecDocumentEmbedder(root_path=tmp_path, **settings)
        segments = embedder.run(documents=splitter.run(documents=[document])["documents"])["documents"]
        store.write_documents(segments)
        # Two hits: of one alone the window retriever makes a filter that Chroma refuses.
        hits = retriever(store, top_k=2).run(query_embedding=segments[2].embedding)["documents"]
        assert hits[0].id == segments[2].id
        window = SentenceWindowRetriever(document_store=store, window_size=1).run(retrieved_documents=hits)
        assert [
            (one.meta["split_id"], one.meta["start_seconds"], one.meta["end_seconds"])
            for one in window["context_documents"][:3]
        ] == [(1, 2.0, 4.0), (2, 4.0, 6.0), (3, 6.0, 8.0)]


def test_evaluators(library, tiny):
    """Recall and reciprocal rank of audio documents, by what they are found by."""
    store, settings = InMemoryDocumentStore(), {"model": "alm2vec-tiny", "device": CPU, "progress_bar": False}
    documents = AudioFileToDocument().run(sources=library)["documents"]
    embedder = ALM2VecDocumentEmbedder(root_path=library[0].parent, **settings)
    store.write_documents(embedder.run(documents=documents)["documents"])
    retriever = TextEmbeddingRetriever(
        retriever=InMemoryEmbeddingRetriever(store, top_k=3), text_embedder=ALM2VecTextEmbedder(**settings)
    )
    queries = {
        "a church bell over wind": "church bell over wind",
        "a cat meowing over guitar music": "cat over guitar",
        "a dog barking over rain": "dog over rain",
    }
    retrieved = [retriever.run(query=query)["documents"] for query in queries]
    truth = [[document for document in documents if name_of(document) == name] for name in queries.values()]
    for field in ("id", "meta.file_path"):
        for evaluator in (DocumentRecallEvaluator, DocumentMRREvaluator):
            found = evaluator(document_comparison_field=field).run(
                ground_truth_documents=truth, retrieved_documents=retrieved
            )
            assert found["score"] == 1.0
    wrong = DocumentRecallEvaluator(document_comparison_field="id").run(
        ground_truth_documents=truth[::-1], retrieved_documents=retrieved
    )
    assert wrong["score"] < 1.0


def test_many_async_queries_make_progress_side_by_side(settings):
    """One forward at a time, and an index that is being written does not hold up a query."""

    async def main():
        query = Pipeline()
        query.add_component("query", ALM2VecTextEmbedder(**settings))
        indexing = Pipeline()
        indexing.add_component("embedder", ALM2VecDocumentEmbedder(batch_size=1, **settings))
        await query.warm_up_async()
        documents = [Document(content=str(n)) for n in range(400)]
        writing = asyncio.create_task(indexing.run_async({"embedder": {"documents": documents}}))
        await asyncio.sleep(0)
        found = await asyncio.gather(*(query.run_async({"query": {"text": f"q{n}"}}) for n in range(4)))
        early = not writing.done()
        assert len((await writing)["embedder"]["documents"]) == 400
        return found, early

    found, early = asyncio.run(main())
    assert len({tuple(one["query"]["embedding"]) for one in found}) == 4
    assert early
    assert not fake_checkpoints.overlapping.is_set()


def test_importing_the_components_needs_the_framework_alone():
    """The re-exports are the classes that YAML names, and a pipeline finds them without ours being imported."""
    script = """
        import sys
        from haystack.core.serialization import import_class_by_name
        name = "haystack_integrations.components.embedders.alm2vec.text_embedder.ALM2VecTextEmbedder"
        found = import_class_by_name(name)
        import alm2vec_integrations.haystack as ours
        assert ours.ALM2VecTextEmbedder is found
        assert f"{found.__module__}.{found.__name__}" == name
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(script)], check=True)


def test_errors_reach_the_pipelines_caller(settings):
    """With the component's name around ours."""
    pipeline = Pipeline()
    pipeline.add_component("embedder", ALM2VecDocumentEmbedder(**settings))
    with pytest.raises(Exception, match="document it") as caught:
        pipeline.run({"embedder": {"documents": [Document(id="it")]}})
    assert isinstance(caught.value.__cause__ or caught.value, InputError)
