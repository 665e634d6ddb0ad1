"""What goes wrong without a word behind Haystack, each shown to go wrong in naive components."""

import asyncio
import contextlib
import copy
import gc
import os
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace

import fake_checkpoints
import naive_haystack
import numpy as np
import pytest
import recordings
import sounds
import torch
from haystack import Document, Pipeline, component
from haystack.components.retrievers import InMemoryEmbeddingRetriever, MultiQueryEmbeddingRetriever
from haystack.core.errors import DeserializationError, PipelineConnectError, SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from alm2vec_integrations import ALM2VecEncoder, AudioClip, CheckpointError, InputError
from alm2vec_integrations.haystack import (
    ALM2VecDocumentEmbedder,
    ALM2VecRanker,
    ALM2VecTextEmbedder,
    AudioFileToDocument,
)

OURS = SimpleNamespace(
    text=ALM2VecTextEmbedder, document=ALM2VecDocumentEmbedder, converter=AudioFileToDocument, ranker=ALM2VecRanker
)
NAIVE = SimpleNamespace(
    text=naive_haystack.NaiveTextEmbedder,
    document=naive_haystack.NaiveDocumentEmbedder,
    converter=naive_haystack.NaiveConverter,
    ranker=naive_haystack.NaiveRanker,
)


@pytest.fixture
def model(fake):
    """Arguments for a component with the fake model."""
    return {"model": str(fake), "trust_remote_code": True}


@pytest.fixture
def wav(tmp_path):
    return sounds.write(tmp_path / "a.wav", sounds.noise(2.0, seed=1))


def piped(component):
    pipeline = Pipeline()
    pipeline.add_component("it", component)
    return pipeline


def rooted(kit, wav, model):
    """A document embedder that may open what lies beside `wav`."""
    return kit.document(**model, **({} if kit is NAIVE else {"root_path": wav.parent}))


def core(model):
    return ALM2VecEncoder(**model)


def stored_pipelines_load(kit, model, wav):
    """Haystack makes classes of its own modules and of `haystack_integrations` only."""
    Pipeline.loads(piped(kit.text(**model)).dumps())


def code_is_not_run_on_the_word_of_yaml(kit, model, wav):
    """The class is allowed; what it loads is another matter."""
    sentinel = wav.parent / "sentinel"
    code = f"import pathlib; pathlib.Path({str(sentinel)!r}).touch()\n" + fake_checkpoints.CODE
    fake_checkpoints.write(wav.parent / "hostile", code)
    written = kit.text(model=str(wav.parent / "hostile"), trust_remote_code=True).to_dict()
    with contextlib.suppress(CheckpointError):
        kit.text.from_dict(written).warm_up()
    assert not sentinel.exists()


def refusal_is_an_error(kit, model, wav):
    """With what to do instead."""
    with pytest.raises(CheckpointError, match="ALM2VEC_TRUSTED_REPOS"):
        kit.text.from_dict(kit.text(**model).to_dict()).warm_up()


def components_can_be_made(kit, model, wav):
    """`super()` without arguments fails in a class that `@component` has made again."""
    kit.ranker(**model)


def a_retriever_connects_without_names(kit, model, wav):
    """A second output of a dict could be its filters."""
    pipeline = piped(kit.text(**model))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(InMemoryDocumentStore()))
    pipeline.connect("it", "retriever")
    pipeline.run({"it": {"text": "x"}})
    assert [one["sender"] for one in pipeline.to_dict()["connections"]] == ["it.embedding"]
    assert list(pipeline.get_component("it").run(text="x")) == ["embedding"]


def warming_up_leaves_the_event_loop_alone(kit, model, wav):
    """A component without `warm_up_async` is warmed up on it."""
    threads = []
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(fake_checkpoints, "on_encode", lambda *_: threads.append(threading.current_thread()))
        asyncio.run(piped(kit.text(**model)).run_async({"it": {"text": "x"}}))
    assert threads
    assert threading.main_thread() not in threads


@component
class FindsNothing:
    """A retriever that takes vectors of any kind."""

    @component.output_types(documents=list[Document])
    def run(self, query_embedding: list[float]):
        return {"documents": []}


def many_queries_can_have_an_instruction(kit, model, wav):
    """MultiQueryEmbeddingRetriever passes the text alone."""
    embedder = kit.text(**model, instruction="own")
    MultiQueryEmbeddingRetriever(retriever=FindsNothing(), query_embedder=embedder).run(queries=["a"])
    assert [call["instruction"] for call in fake_checkpoints.calls if call.get("text") == ["a"]] == ["own"]


def an_instruction_does_not_stick(kit, model, wav):
    embedder = kit.text(**model)
    before = embedder.run(text="a")
    embedder.run(text="a", instruction="call")
    assert embedder.run(text="a") == before


def vectors_are_lists_of_floats(kit, model, wav):
    """InMemoryDocumentStore rejects numpy's."""
    assert {type(value) for value in kit.text(**model).run(text="a")["embedding"]} == {float}


def files_of_one_name_are_two_documents(kit, model, wav):
    paths = [sounds.write(wav.parent / name / "clip.wav", sounds.noise(1.0)) for name in "ab"]
    assert len({document.id for document in kit.converter().run(sources=paths)["documents"]}) == 2


def a_file_recorded_anew_is_another_document(kit, model, wav):
    before = kit.converter().run(sources=[wav])["documents"][0].id
    sounds.write(wav, sounds.noise(1.0, seed=2))
    assert kit.converter().run(sources=[wav])["documents"][0].id != before


def stores_do_not_keep_the_bytes(kit, model, wav):
    """80 MB a hit, for a recording of 10 MB."""
    assert kit.converter().run(sources=[wav])["documents"][0].blob is None


def placeholders_are_not_embedded(kit, model, wav):
    """Chroma takes no document without content."""
    documents = kit.converter(content_placeholder="[audio]").run(sources=[wav])["documents"]
    assert documents[0].content == "[audio]"
    found = rooted(kit, wav, model).run(documents=documents)["documents"][0]
    assert np.allclose(found.embedding, core(model).encode_document(AudioClip(wav)))


def every_recording_has_a_type(kit, model, wav):
    """Whatever the system's own table holds."""
    path = recordings.write(wav.parent / "a.caf", "caf")
    (found,) = kit.converter().run(sources=[str(path)])["documents"]
    assert (found.meta.get("mime_type") or found.blob.mime_type or "").startswith("audio/")


def a_bad_file_is_skipped(kit, model, wav):
    assert len(kit.converter().run(sources=[wav, wav.parent / "none.wav"])["documents"]) == 1


def a_texts_file_is_no_recording(kit, model, wav):
    """TextFileToDocument writes `file_path` too, also of an empty file."""
    with pytest.raises(InputError, match="neither text nor audio"):
        rooted(kit, wav, model).run(documents=[Document(content="", meta={"file_path": str(wav)})])


def documents_stay_as_they_are(kit, model, wav):
    documents = [Document(content="a")]
    before = copy.deepcopy(documents)
    rooted(kit, wav, model).run(documents=documents)
    assert documents == before


def meta_stays_flat(kit, model, wav):
    """Chroma drops what is nested."""
    found = rooted(kit, wav, model).run(documents=[Document(content="a")])["documents"][0]
    assert found.meta
    assert all(isinstance(value, (str, int, float, bool)) for value in found.meta.values())


def paths_stay_inside(kit, model, wav):
    sounds.write(out := wav.parent.parent / "out.wav", sounds.noise(1.0))
    try:
        with pytest.raises(InputError, match="outside root_path"):
            rooted(kit, wav, model).run(documents=[Document(meta={"file_path": str(out)})])
    finally:
        out.unlink()


def urls_are_refused(kit, model, wav):
    with pytest.raises(InputError, match="download"):
        rooted(kit, wav, model).run(documents=[Document(meta={"file_path": "http://example.org/a.wav"})])


def an_empty_list_loads_nothing(kit, model, wav):
    rooted(kit, wav, model).run(documents=[])
    assert fake_checkpoints.loads == []


def the_model_is_one(kit, model, wav):
    kept = [kit.text(**model), rooted(kit, wav, model)]
    for embedder in kept:
        embedder.warm_up()
    assert len(fake_checkpoints.loads) == 1


def closing_releases_it(kit, model, wav):
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_checkpoints, "on_encode", lambda loaded, _: seen.append(weakref.ref(loaded)))
        pipeline = piped(kit.text(**model))
        pipeline.run({"it": {"text": "a"}})
    pipeline.close()
    gc.collect()
    assert seen
    assert seen[0]() is None


def paths_can_be_written_down(kit, model, wav):
    piped(kit.text(model=wav.parent)).dumps()


def model_kwargs_stay_as_they_are(kit, model, wav):
    kwargs = {"quantization_config": {"compute_dtype": torch.bfloat16}}
    embedder = kit.text(**model, model_kwargs=kwargs)
    embedder.to_dict()
    assert embedder.model_kwargs == {"quantization_config": {"compute_dtype": torch.bfloat16}}


def telemetry_does_not_name_folders(kit, model, wav):
    assert model["model"] not in str(kit.text(**model)._get_telemetry_data())


TRAPS = {
    stored_pipelines_load: DeserializationError,
    code_is_not_run_on_the_word_of_yaml: AssertionError,
    refusal_is_an_error: pytest.fail.Exception,
    components_can_be_made: TypeError,
    a_retriever_connects_without_names: PipelineConnectError,  # of more than one possible connection
    warming_up_leaves_the_event_loop_alone: AssertionError,
    many_queries_can_have_an_instruction: AssertionError,
    an_instruction_does_not_stick: AssertionError,
    vectors_are_lists_of_floats: AssertionError,
    files_of_one_name_are_two_documents: AssertionError,
    a_file_recorded_anew_is_another_document: AssertionError,
    stores_do_not_keep_the_bytes: AssertionError,
    placeholders_are_not_embedded: AssertionError,
    every_recording_has_a_type: AssertionError,
    a_bad_file_is_skipped: FileNotFoundError,
    a_texts_file_is_no_recording: pytest.fail.Exception,
    documents_stay_as_they_are: AssertionError,
    meta_stays_flat: AssertionError,
    paths_stay_inside: pytest.fail.Exception,
    urls_are_refused: FileNotFoundError,  # of a model whose code opens files; another's would fetch it
    an_empty_list_loads_nothing: AssertionError,
    the_model_is_one: AssertionError,
    closing_releases_it: AssertionError,
    paths_can_be_written_down: SerializationError,
    model_kwargs_stay_as_they_are: AssertionError,
    telemetry_does_not_name_folders: AssertionError,
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_ours_fall_into_none(trap, model, wav):
    trap(OURS, model, wav)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_naive_ones_fall_into_each(trap, model, wav):
    """So the check can fail, and for its own reason."""
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        trap(NAIVE, model, wav)
    assert type(caught.value) is TRAPS[trap]


def test_texts_are_connected_by_name():
    """A text could be the instruction too, so `.text` says which; the page says so."""
    from haystack.components.builders import PromptBuilder

    pipeline = piped(ALM2VecTextEmbedder(model="owner/name"))
    pipeline.add_component("builder", PromptBuilder("{{ words }}"))
    with pytest.raises(PipelineConnectError):
        pipeline.connect("builder", "it")
    pipeline.connect("builder.prompt", "it.text")


def test_a_package_with_an_init_takes_the_others_down(tmp_path):
    """Why there is none above our components."""
    pytest.importorskip("qdrant_client")
    (tmp_path / "haystack_integrations").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", "import haystack_integrations.document_stores.qdrant"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    (tmp_path / "haystack_integrations" / "__init__.py").touch()
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1


def test_qdrant_is_told_the_width(tiny):
    """Its default is that of another model."""
    pytest.importorskip("qdrant_client")
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    embedder = ALM2VecDocumentEmbedder(model="alm2vec-tiny", progress_bar=False)
    documents = embedder.run(documents=[Document(content="a")])["documents"]
    with pytest.raises(Exception, match="768"):
        QdrantDocumentStore(":memory:").write_documents(documents)
    QdrantDocumentStore(":memory:", embedding_dim=tiny.dim).write_documents(documents)
