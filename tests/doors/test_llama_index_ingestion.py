"""Recordings through LlamaIndex's `IngestionPipeline`: cache, upserts and workers, with encodes counted."""

import asyncio
import json
import subprocess
import sys

import fake_checkpoints
import pytest
import sounds
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.schema import Document, Node
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from alm2vec_integrations import ALM2VecEncoder, AudioClip
from alm2vec_integrations.llama_index import ALM2VecEmbedding, AudioNodeParser, AudioReader

INSTRUCTION = "Represent the audio by the background noise."


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        fake_checkpoints.loaded(core)
        yield core


@pytest.fixture
def embedding(fake, clips):
    return ALM2VecEmbedding(model_name=fake, trust_remote_code=True, device="cpu", allowed_audio_roots=clips[0].parent)


def read(paths):
    return [document for path in paths for document in AudioReader().load_data(path)]


def encoded():
    """How many items have been embedded since last asked."""
    count = sum(len(call.get("text") or call["audio"]) for call in fake_checkpoints.calls)
    fake_checkpoints.calls.clear()
    return count


@pytest.mark.parametrize("run", [IngestionPipeline.run, lambda *a, **kw: asyncio.run(IngestionPipeline.arun(*a, **kw))])
class TestCounted:
    def test_upserts(self, embedding, core, clips, run):
        """First all; unchanged none; one made anew under its path, one, in the place of the old one."""
        store = SimpleVectorStore()
        pipeline = IngestionPipeline(
            transformations=[AudioNodeParser(), embedding],
            docstore=SimpleDocumentStore(),
            vector_store=store,
            disable_cache=True,
        )
        run(pipeline, documents=read(clips[:3]))
        assert encoded() == 3
        run(pipeline, documents=read(clips[:3]))
        assert encoded() == 0
        sounds.write(clips[1], sounds.noise(0.5, seed=99))
        nodes = run(pipeline, documents=read(clips[:3]))
        assert encoded() == 1
        assert [node.audio_resource.path for node in nodes] == [clips[1]]
        expected = [core.encode_document(AudioClip(path)).tolist() for path in clips[:3]]
        assert sorted(store.data.embedding_dict.values()) == sorted(expected)

    def test_a_document_that_is_gone(self, embedding, clips, run):
        """Goes from the store."""
        store = SimpleVectorStore()
        pipeline = IngestionPipeline(
            transformations=[AudioNodeParser(), embedding],
            docstore=SimpleDocumentStore(),
            vector_store=store,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        )
        documents = read(clips[:3])
        run(pipeline, documents=documents[:])
        run(pipeline, documents=documents[:2])
        assert set(store.data.text_id_to_ref_doc_id.values()) == {document.id_ for document in documents[:2]}

    def test_the_cache(self, embedding, core, clips, run):
        """Unchanged none; made anew under its path, one."""
        pipeline = IngestionPipeline(transformations=[AudioNodeParser(), embedding])
        first = run(pipeline, documents=read(clips[:1]))
        assert encoded() == 1
        (again,) = run(pipeline, documents=read(clips[:1]))
        assert encoded() == 0
        assert type(again) is Node
        assert (again.node_id, again.embedding) == (first[0].node_id, first[0].embedding)
        sounds.write(clips[0], sounds.noise(0.5, seed=99))
        (new,) = run(pipeline, documents=read(clips[:1]))
        assert encoded() == 1
        assert new.embedding == core.encode_document(AudioClip(clips[0])).tolist()

    def test_one_cache_two_recordings_two_instructions(self, embedding, core, clips, run):
        """Four vectors, each the core's; and the cache gives each of them back."""
        cache = IngestionCache()
        for count in (1, 0):
            vectors = []
            for path in clips[:2]:
                for instruction in (None, INSTRUCTION):
                    steered = embedding.with_instructions(document=instruction)
                    pipeline = IngestionPipeline(transformations=[AudioNodeParser(), steered], cache=cache)
                    vectors += [node.embedding for node in run(pipeline, documents=read([path]))]
                    assert encoded() == count
                    assert vectors[-1] == core.encode_document(AudioClip(path), instruction=instruction).tolist()
                    encoded()
            assert len({tuple(vector) for vector in vectors}) == 4

    def test_dog_and_rain(self, tiny, library, run):
        """With the model that knows them: a dog and rain under one cache and two instructions, four vectors."""
        embedding = ALM2VecEmbedding(model_name="alm2vec-tiny", device="cpu", allowed_audio_roots=library[0].parent)
        cache, vectors = IngestionCache(), []
        for name in ("dog over piano", "knock over rain"):
            path = library[0].with_stem(name)
            assert path in library
            for instruction in (None, INSTRUCTION):
                steered = embedding.with_instructions(document=instruction)
                pipeline = IngestionPipeline(transformations=[AudioNodeParser(), steered], cache=cache)
                vectors += [node.embedding for node in run(pipeline, documents=read([path]))]
                assert vectors[-1] == tiny.encode_document(AudioClip(path), instruction=instruction).tolist()
        assert len({tuple(vector) for vector in vectors}) == 4

    def test_one_cache_two_segmentations(self, embedding, core, clips, run):
        """Lengths are part of the parser's dump."""
        cache = IngestionCache()
        counts = []
        for seconds in (None, 0.5, 0.3, 0.3):
            parser = AudioNodeParser(segment_seconds=seconds, min_seconds=0.1)
            nodes = run(IngestionPipeline(transformations=[parser, embedding], cache=cache), documents=read([clips[9]]))
            counts.append((len(nodes), encoded()))
        assert counts == [(1, 1), (4, 4), (6, 6), (6, 0)]

    def test_same_bytes_at_two_paths(self, embedding, clips, run):
        """Are two documents."""
        clips[1].write_bytes(clips[0].read_bytes())
        pipeline = IngestionPipeline(transformations=[AudioNodeParser(), embedding])
        nodes = [run(pipeline, documents=read([path]))[0] for path in clips[:2]]
        assert [node.audio_resource.path for node in nodes] == clips[:2]
        assert nodes[0].ref_doc_id != nodes[1].ref_doc_id

    def test_texts_among_recordings(self, embedding, core, clips, run):
        """Each by its kind, in order."""
        pipeline = IngestionPipeline(transformations=[AudioNodeParser(), embedding])
        nodes = run(pipeline, documents=[*read(clips[:1]), Document(text="a dog"), *read(clips[1:2])])
        expected = core.encode_document([AudioClip(clips[0]), "a dog", AudioClip(clips[1])]).tolist()
        assert [node.embedding for node in nodes] == expected


def test_a_pipeline_persists_and_loads(embedding, core, clips, tmp_path):
    """With its cache and its docstore: nothing is embedded again."""

    def make():
        return IngestionPipeline(
            transformations=[AudioNodeParser(), embedding],
            docstore=SimpleDocumentStore(),
            vector_store=SimpleVectorStore(),
        )

    pipeline = make()
    pipeline.run(documents=read(clips[:2]))
    pipeline.persist(str(tmp_path / "pipeline"))
    assert encoded() == 2
    again = make()
    again.load(str(tmp_path / "pipeline"))
    assert list(again.run(documents=read(clips[:2]))) == []
    assert encoded() == 0


WORKERS = """
import json, sys
from llama_index.core.ingestion import IngestionPipeline
from alm2vec_integrations.llama_index import ALM2VecEmbedding, AudioNodeParser, AudioReader

if __name__ == "__main__":
    documents = [document for path in sys.argv[2:] for document in AudioReader().load_data(path)]
    embedding = ALM2VecEmbedding(model_name="alm2vec-tiny", device="cpu", allowed_audio_roots=sys.argv[1])
    pipeline = IngestionPipeline(transformations=[AudioNodeParser(), embedding], disable_cache=True)
    print(json.dumps([node.embedding for node in pipeline.run(documents=documents, num_workers=2)]))
"""


def test_workers(library, tiny, tmp_path):
    """Each process loads the model for itself, and gives the same vectors."""
    (script := tmp_path / "workers.py").write_text(WORKERS)
    arguments = [sys.executable, script, library[0].parent, *library[:2]]
    # A pool waits for ever for a worker that could not read what it was sent.
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = [tiny.encode_document(AudioClip(path)).tolist() for path in library[:2]]
    assert json.loads(done.stdout) == expected
