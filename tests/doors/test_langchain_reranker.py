"""Documents in another order."""

from pathlib import Path

import fake_checkpoints
import pytest
import sounds
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from alm2vec_integrations import DOC_INSTRUCTION, AudioAccessError, AudioClip, AudioText, InputError
from alm2vec_integrations.langchain import ALM2VecEmbeddings, ALM2VecReranker, ALM2VecRetriever, AudioLoader
from alm2vec_integrations.langchain.queries import understand


@pytest.fixture
def embeddings(fake, clips):
    return ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent)


@pytest.fixture
def documents(clips):
    return [
        Document("male", id="1"),
        *(Document(AudioClip(one).reference(), metadata={"n": 1}) for one in clips[:3]),
    ]


async def both(reranker, documents, query):
    found = reranker.compress_documents(documents, query)
    assert await reranker.acompress_documents(documents, query) == found
    return [(one.page_content, one.metadata["relevance_score"]) for one in found]


@pytest.mark.parametrize("question", [None, "who?"])
async def test_as_the_core(embeddings, documents, clips, question):
    """Order and scores, for texts, clips and both."""
    reranker = ALM2VecReranker(embeddings=embeddings, question=question, instruction="i", top_n=3)
    core = embeddings._core()
    candidates = ["male", *(AudioClip(one) for one in clips[:3])]
    clip = AudioClip(clips[4])
    for query, item, asked in (
        ("words", "words", question),
        ({"audio": clips[4]}, clip, question),
        ({"audio": clips[4], "question": "what?"}, clip, "what?"),
        ({"audio": clips[4], "text": "what?"}, AudioText("what?", clip), "what?"),
    ):
        if query == "words" and question:
            continue  # an answer: below
        expected = core.rerank(item, candidates, question=asked, instruction="i", top_n=3)
        assert await both(reranker, documents, query) == [
            (documents[one.index].page_content, one.score) for one in expected
        ]


@pytest.mark.parametrize("kinds", ["texts", "both"])
async def test_an_answer_has_the_instruction_of_the_query(embeddings, documents, kinds):
    """As from the retriever, whether the call or the field gives it; recordings, which are steered, have it too."""
    documents = documents[:1] if kinds == "texts" else documents
    answer = {"text": "traffic", "question": "who?"}
    fake_checkpoints.loaded(embeddings._core())
    for fields, query in (({}, answer | {"instruction": "i"}), ({"instruction": "i"}, answer)):
        fake_checkpoints.calls.clear()
        await both(ALM2VecReranker(embeddings=embeddings, **fields), documents, query)
        seen = {
            (text, call["task"], call["instruction"])
            for call in fake_checkpoints.calls
            for text in call.get("text", [])
        }
        steered = {("who?", "query", "i")} if kinds == "both" else set()
        assert seen == {("traffic", "document", "i"), ("male", "document", DOC_INSTRUCTION)} | steered


@pytest.mark.parametrize(
    "settings",
    [
        {"document_instruction": "stored"},
        {"document_task": "query"},
        {"document_task": "query", "document_instruction": "stored"},
        {"document_task": "query", "document_instruction": "stored", "document_question": "who?"},
        {"document_question": "who?"},
    ],
)
@pytest.mark.parametrize("instruction", [None, "asked"])
async def test_scores_are_those_of_a_store(embeddings, documents, clips, settings, instruction):
    """Of the same embeddings, for the retriever's queries; with a question, of those that have it."""
    for question in (None, "who?", "what?"):
        stored = embeddings.with_settings(**settings, query_instruction="own")
        reranker = ALM2VecReranker(embeddings=stored, question=question, instruction=instruction)
        for query in ("words", {"audio": clips[4]}, {"audio": clips[4], "text": "what?"}):
            asks = "what?" if "text" in query else question
            if asks and settings == {"document_instruction": "stored"}:
                continue  # not made for an aspect: as the core steers, above
            store = InMemoryVectorStore(stored.with_settings(document_question=asks) if asks else stored)
            store.add_documents([one.model_copy(update={"id": None}) for one in documents])
            retriever = ALM2VecRetriever(vectorstore=store, question=question, instruction=instruction)
            asked = understand(query, default_question=question)
            vector = store.embeddings._query(asked.item, instruction, asked.task)
            scores = {
                one.page_content: score for one, score, _ in store._similarity_search_with_score_by_vector(vector, 4)
            }
            found = await both(reranker, documents, query)
            assert [content for content, _ in found] == [one.page_content for one in retriever.invoke(query)]
            assert dict(found) == pytest.approx(scores, abs=1e-5)


async def test_nothing_is_changed_in_place(embeddings, documents):
    """Copies, with what documents had."""
    before = [one.model_copy(deep=True) for one in documents]
    found = ALM2VecReranker(embeddings=embeddings).compress_documents(documents, "q")
    assert documents == before
    assert {one.id for one in found} == {"1", None}
    assert all(one.metadata.get("n") == 1 for one in found if one.id is None)


def test_instructions_of_the_embeddings(embeddings, documents):
    """Those of queries and of documents, as in the store."""
    own = embeddings.with_instructions(query="asked", document="stored")
    ALM2VecReranker(embeddings=own).compress_documents(documents, "q")
    assert {(call["task"], call["instruction"]) for call in fake_checkpoints.calls if "q" in call.get("text", [])} == {
        ("query", "asked")
    }
    assert {call["instruction"] for call in fake_checkpoints.calls if call["task"] == "document"} >= {"stored"}
    fake_checkpoints.calls.clear()
    ALM2VecReranker(embeddings=own, instruction="field").compress_documents(
        documents, {"text": "q", "instruction": "item"}
    )
    assert {call["instruction"] for call in fake_checkpoints.calls} == {"item", "stored"}


async def test_refusals_name_the_document(embeddings, documents, tmp_path):
    """Outside the roots, cut off, or empty; and fields that are none."""
    reranker = ALM2VecReranker(embeddings=embeddings)
    outside = sounds.write(tmp_path / "outside.wav", sounds.noise(0.5))
    for content, kind, message in (
        (AudioClip(outside).reference(), AudioAccessError, "^item 4, .*outside"),
        (documents[1].page_content[:-3], InputError, "^item 4, .*malformed"),
        ("audio:http://example.org/a.wav", InputError, "^item 4, .*URL"),
        (" ", InputError, "^item 4, .*empty"),
    ):
        with pytest.raises(kind, match=message):
            reranker.compress_documents([*documents, Document(content)], "q")
        with pytest.raises(kind, match=message):
            await reranker.acompress_documents([*documents, Document(content)], "q")
    with pytest.raises(InputError, match="a query has"):
        reranker.compress_documents(documents, {"texts": "q"})
    for wrong in (0, True, "3"):
        with pytest.raises(ValidationError, match="top_n must be a whole number"):
            ALM2VecReranker(embeddings=embeddings, top_n=wrong)
    with pytest.raises(ValidationError, match="questions"):
        ALM2VecReranker(embeddings=embeddings, questions="who?")
    assert reranker.compress_documents([], "q") == []


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Describe the background noise of this audio?", "knock over rain"),
        ("What is the main sound?", "dog over piano"),
    ],
)
def test_two_questions_swap_the_first(tiny, library, question, expected):
    """Of what a store without a question found, by LangChain's own retriever with a compressor."""
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers import ContextualCompressionRetriever

    folder, example = library[0].parent, library[0]
    embeddings = ALM2VecEmbeddings(model="alm2vec-tiny", device="cpu", allowed_audio_roots=folder)
    store = InMemoryVectorStore(embeddings)
    store.add_documents([one for one in AudioLoader(folder).load() if one.metadata["source"] != str(example)])
    retriever = ContextualCompressionRetriever(
        base_retriever=ALM2VecRetriever(vectorstore=store, k=6),
        base_compressor=ALM2VecReranker(embeddings=embeddings, question=question, top_n=1),
    )
    (first,) = retriever.invoke({"audio": example})
    assert Path(first.metadata["source"]).name == f"{expected}.flac"
