"""The ranker behind Haystack."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recordings
from haystack import Document, Pipeline
from haystack.utils import ComponentDevice

from alm2vec_integrations import QUESTIONS, AudioClip, InputError
from alm2vec_integrations.haystack import ALM2VecDocumentEmbedder, ALM2VecRanker, AudioFileToDocument

HOME = "haystack_integrations.components"
MAIN_SOUND = "What is the main sound?"


@pytest.fixture
def ranker(library, tiny):
    with_settings = {"model": "alm2vec-tiny", "device": ComponentDevice.from_str("cpu")}
    return ALM2VecRanker(root_path=library[0].parent, **with_settings)


@pytest.fixture
def documents(library):
    return AudioFileToDocument().run(sources=library[1:])["documents"]


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_question_decides(ranker, documents, library, in_loop, tiny):
    """What is like a dog over rain: by the background a knock over rain, by the main sound a dog."""

    def rank(**given):
        return (asyncio.run(ranker.run_async(**given)) if in_loop else ranker.run(**given))["documents"]

    for question, first in (
        (QUESTIONS["background"], "knock over rain.flac"), ("What is the main sound?", "dog over piano.flac"),
    ):  # fmt: skip
        given = {"query": question, "audio": library[0]}, {"question": question, "audio": str(library[0])}
        for one in given:
            found = rank(documents=documents, top_k=2, **one)
            assert Path(found[0].meta["file_path"]).name == first
            expected = tiny.rerank(
                AudioClip(library[0]), [AudioClip(path) for path in library[1:]], question=question, top_n=2
            )
            assert [document.score for document in found] == [one.score for one in expected]
            assert [document.id for document in found] == [documents[one.index].id for one in expected]
    assert all(document.score is None for document in documents)


def test_text(ranker, documents, tiny):
    """A query in words, over texts and recordings."""
    mixed = [Document(content="a piano"), *documents]
    found = ranker.run(query="a church bell in the wind", documents=mixed)["documents"]
    assert found[0].meta["file_path"].endswith("church bell over wind.flac")
    assert len(found) == len(mixed)


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_question_is_for_both_sides(library, documents, tiny, in_loop):
    """One of a run stands in for the component's, however it is passed; two in one run are refused."""
    settings = {"model": "alm2vec-tiny", "device": ComponentDevice.from_str("cpu"), "question": MAIN_SOUND}
    ranker = ALM2VecRanker(root_path=library[0].parent, **settings)
    candidates = [AudioClip(path) for path in library[1:]]

    def rank(**given):
        given |= {"documents": documents, "audio": library[0]}
        found = asyncio.run(ranker.run_async(**given)) if in_loop else ranker.run(**given)
        return [document.score for document in found["documents"]]

    def expected(question):
        return [one.score for one in tiny.rerank(AudioClip(library[0]), candidates, question=question)]

    background = QUESTIONS["background"]
    assert rank(query=background) == rank(question=background) == expected(background)
    assert rank() == rank(question="") == expected(MAIN_SOUND) != expected(background)
    for question in (background, MAIN_SOUND):
        with pytest.raises(InputError, match="pass one of them"):
            rank(query=MAIN_SOUND, question=question)


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("question", [None, MAIN_SOUND])
def test_one_that_is_gone(library, documents, in_loop, question, tmp_path, caplog):
    """Fails the search by its name; or is left out with a warning, as is one that proves to be broken late."""
    broken = recordings.write(tmp_path / "broken.flac", "flac 16")
    late = AudioFileToDocument().run(sources=[broken])["documents"][0]
    broken.write_bytes(broken.read_bytes()[:-2000])
    late = replace(late, id="late", meta={k: v for k, v in late.meta.items() if k != "audio_digest"})
    bad = [Document(id="blank", content=" "), Document(id="gone", meta={"file_path": str(tmp_path / "none.wav")}),
           Document(id="half", content="\ud800"), late]  # fmt: skip
    mixed = [bad[0], *documents[:2], *bad[1:], *documents[2:], Document(content="a dog")]
    settings = {"model": "alm2vec-tiny", "device": ComponentDevice.from_str("cpu"), "question": question}

    def rank(documents, root_path="/", **given):
        ranker = ALM2VecRanker(root_path=root_path, **settings, **given)
        given = {"documents": documents, "audio": library[0]}
        return (asyncio.run(ranker.run_async(**given)) if in_loop else ranker.run(**given))["documents"]

    for one in bad:
        with pytest.raises(InputError, match=f"item 1, document {one.id}"):
            rank([documents[0], one])
    with caplog.at_level(logging.WARNING):
        found = rank(mixed, raise_on_failure=False)
        assert rank(bad, raise_on_failure=False) == []
    good = rank([one for one in mixed if one not in bad])
    assert [one.id for one in found] == [one.id for one in good]
    assert [one.score for one in found] == pytest.approx([one.score for one in good], abs=1e-5)
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(said) == 8
    assert all(sum(f"document {one.id}" in text for text in said) == 2 for one in bad)
    assert "item 4, document half" in str(said)
    with pytest.raises(InputError, match="outside root_path"):
        rank(documents, root_path=str(tmp_path), raise_on_failure=False)


def test_texts_as_the_embedder_has_them(tiny):
    """With what it puts around them."""
    given = {
        "model": "alm2vec-tiny", "device": ComponentDevice.from_str("cpu"), "meta_fields_to_embed": ["title"],
        "prefix": "a dog: ", "suffix": " (rain)",
    }  # fmt: skip
    documents = [Document(content="a", meta={"title": "b"})]
    embedded = ALM2VecDocumentEmbedder(**given, progress_bar=False).run(documents=documents)["documents"][0]
    found = ALM2VecRanker(**given).run(query="x", documents=documents)["documents"][0]
    assert found.score == pytest.approx(tiny.encode_query("x") @ np.float32(embedded.embedding), abs=1e-6)


def test_arguments(ranker, documents):
    """An empty list comes back, what is none is named, by its document too."""
    assert ranker.run(query="x", documents=[]) == {"documents": []}
    for given, message in (
        ({"documents": documents}, "both are None"),
        ({"documents": documents, "query": "x", "top_k": 0}, "top_k must be"),
        ({"documents": [Document(id="it")], "query": "x"}, "item 0, document it: has neither"),
        ({"documents": [Document(id="it", meta={"file_path": "/etc/x.wav"})], "query": "x"}, "outside root_path"),
        ({"documents": documents, "audio": "/none.wav"}, "outside root_path"),
    ):
        with pytest.raises(InputError, match=message):
            ranker.run(**given)
    with pytest.raises(TypeError, match="ALM2VecRanker expects a list of Documents"):
        ranker.run(query="x", documents="x")


def test_storing():
    """All arguments, back and forth."""
    own = {
        "top_k": 3, "question": "q?", "instruction": "i", "document_instruction": "d", "prefix": "p", "suffix": "s",
        "meta_fields_to_embed": ["m"], "embedding_separator": " ", "file_path_meta_field": "path", "root_path": "/root",
        "raise_on_failure": False,
    }  # fmt: skip
    data = ALM2VecRanker(model="owner/name", **own).to_dict()
    assert data["type"] == f"{HOME}.rankers.alm2vec.ranker.ALM2VecRanker"
    assert own.items() <= data["init_parameters"].items()
    assert ALM2VecRanker.from_dict(data).to_dict() == data
    pipeline = Pipeline()
    pipeline.add_component("ranker", ALM2VecRanker(model="owner/name", **own))
    assert Pipeline.loads(pipeline.dumps()).get_component("ranker").to_dict() == data
