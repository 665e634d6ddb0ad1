"""Audio in each of the stores: added, filtered, found by words, by a clip, by a clip and a question, sync and async."""

import asyncio
import os
import threading
from collections import Counter
from pathlib import Path

import fake_checkpoints
import pytest
import sounds
import stores
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.tools import create_retriever_tool

from alm2vec_integrations import QUESTIONS, AudioAccessError, AudioClip, InputError
from alm2vec_integrations.langchain import (
    ALM2VecEmbeddings,
    ALM2VecReranker,
    ALM2VecRetriever,
    AudioLoader,
    audio_key_encoder,
    to_audio_block,
)

BACKGROUND, MAIN = QUESTIONS["background"], "What is the main sound?"
ABOUT = {BACKGROUND: "Represent the audio by the background noise.", MAIN: "Represent the audio by the main sound."}
AFTER_ITSELF = {BACKGROUND: "knock over rain", MAIN: "dog over piano"}


def names(documents):
    return [Path(document.metadata["source"]).stem for document in documents]


async def both_ways(retriever, query, **keywords):
    """What `invoke` finds, when `ainvoke` finds the same."""
    found = retriever.invoke(query, **keywords)
    assert [one.page_content for one in await retriever.ainvoke(query, **keywords)] == [
        one.page_content for one in found
    ]
    return names(found)


@pytest.fixture(scope="module")
def folder(library):
    return library[0].parent


@pytest.fixture(scope="module")
def embeddings(tiny, folder):
    return ALM2VecEmbeddings(model="alm2vec-tiny", device="cpu", allowed_audio_roots=folder)


@pytest.fixture(scope="module")
def documents(folder):
    return AudioLoader(folder).load()


@pytest.fixture
def example(folder):
    return folder / "dog over rain.flac"


@pytest.fixture
def filled(name, embeddings, documents):
    with stores.empty(name, embeddings, 160) as store:
        store.add_documents(documents)
        yield store


@stores.with_each_store
class TestEachStore:
    async def test_found_by_text_by_clip_and_by_metadata(self, name, filled, example, folder):
        retriever = ALM2VecRetriever(vectorstore=filled, k=1)
        assert await both_ways(retriever, "a cat meowing over guitar music") == ["cat over guitar"]
        assert await both_ways(retriever, {"audio": example}) == ["dog over rain"]
        only = {"filter": stores.where(name, source=str(folder / "man over traffic.flac"))}
        assert await both_ways(retriever, "a cat meowing over guitar music", **only) == ["man over traffic"]
        assert await both_ways(retriever, {"audio": example}, k=3, **only) == ["man over traffic"]

    @pytest.mark.parametrize("question", [BACKGROUND, MAIN])
    async def test_two_questions_swap_the_first_hit(self, name, embeddings, documents, example, question):
        """In an index under the question, after the clip itself; an answer in words finds the same."""
        aspect = embeddings.with_settings(document_task="query", document_question=question)
        with stores.empty(name, aspect, 160) as store:
            store.add_documents(documents)
            retriever = ALM2VecRetriever(vectorstore=store, k=2, question=question)
            expected = ["dog over rain", AFTER_ITSELF[question]]
            assert await both_ways(retriever, {"audio": example}) == expected
            plain = ALM2VecRetriever(vectorstore=store, k=2)
            assert await both_ways(plain, {"audio": example, "text": question}) == expected
            assert await both_ways(plain, {"audio": example, "question": question}) == expected
            assert await both_ways(plain, question, audio=example) == expected
            assert await both_ways(plain, {"audio": example}, text=question) == expected
            assert await both_ways(plain.bind(question=question), {"audio": example}) == expected
            answer = {BACKGROUND: "rain", MAIN: "a dog barking"}[question]
            assert set(await both_ways(retriever, answer)) == set(expected)
            for query in ({"audio": example}, answer):
                found = retriever.invoke(query, k=7)
                again = ALM2VecReranker(embeddings=aspect, question=question).compress_documents(found[::-1], query)
                assert names(again) == names(found)

    @pytest.mark.parametrize("question", [BACKGROUND, MAIN])
    async def test_two_instructions_swap_the_first_hit(self, name, embeddings, documents, example, question):
        """The instruction of the query as of the index, by each way to give it."""
        instruction = ABOUT[question]
        aspect = embeddings.with_settings(document_task="query", document_instruction=instruction)
        with stores.empty(name, aspect, 160) as store:
            store.add_documents([one for one in documents if one.metadata["source"] != str(example)])
            expected = [AFTER_ITSELF[question]]
            query = {"audio": example}
            plain = ALM2VecRetriever(vectorstore=store, k=1)
            assert await both_ways(plain, query, instruction=instruction) == expected
            assert await both_ways(plain, query | {"instruction": instruction}) == expected
            assert await both_ways(plain.bind(instruction=instruction), query) == expected
            field = ALM2VecRetriever(vectorstore=store, k=1, instruction=instruction)
            assert await both_ways(field, query) == expected

    async def test_diversity_and_thresholds(self, name, filled, example):
        """As far as the store has them: InMemory has no relevance scores."""
        least, most = (0.0, 1.0) if name == "Qdrant" else (1.0, 0.0)  # Qdrant takes lambda_mult for diversity
        among = {"fetch_k": 7}
        alike = ALM2VecRetriever(
            vectorstore=filled, search_type="mmr", search_kwargs=among | {"lambda_mult": least}, k=2
        )
        plain = ALM2VecRetriever(vectorstore=filled, k=2)
        assert await both_ways(alike, {"audio": example}) == await both_ways(plain, {"audio": example})
        apart = ALM2VecRetriever(vectorstore=filled, search_type="mmr", search_kwargs=among | {"lambda_mult": most})
        assert await both_ways(apart, {"audio": example}, k=2) != await both_ways(plain, {"audio": example})
        threshold = ALM2VecRetriever(
            vectorstore=filled, search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.98}
        )
        if name == "InMemory":
            with pytest.raises(NotImplementedError):
                threshold.invoke({"audio": example})
        else:
            assert await both_ways(threshold, {"audio": example}) == ["dog over rain"]

    async def test_a_batch_keeps_its_items_apart(self, name, filled, folder):
        """Clips, texts and keywords."""
        queries = [{"audio": path} for path in sorted(folder.iterdir())] + ["a cat meowing over guitar music"]
        expected = [[path.stem] for path in sorted(folder.iterdir())] + [["cat over guitar"]]
        retriever = ALM2VecRetriever(vectorstore=filled)
        assert [names(found) for found in retriever.batch(queries, k=1)] == expected
        assert [names(found) for found in await retriever.bind(k=1).abatch(queries)] == expected

    async def test_as_a_tool(self, name, filled):
        """A tool passes one string: all else is bound."""
        bound = ALM2VecRetriever(vectorstore=filled).bind(k=1, instruction="by sound")
        tool = create_retriever_tool(bound, "sounds", "finds sounds")
        found = tool.invoke({"query": "a cat meowing over guitar music"})
        assert "cat%20over%20guitar" in found
        assert await tool.ainvoke({"query": "a cat meowing over guitar music"}) == found


@pytest.fixture
def on_fake(name, fake, clips):
    """A store whose encoder tells what reaches it, filled with a few recordings."""
    embeddings = ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent)
    with stores.empty(name, embeddings, fake_checkpoints.DIM) as store:
        store.add_documents(AudioLoader(clips[0].parent).load())
        yield store


@stores.with_each_store
class TestSideBySide:
    """32 queries at once, each with an instruction of its own: the pairs that reach the encoder are those."""

    QUERIES = tuple((f"query {i % 8}", f"instruction {i}") for i in range(32))

    @pytest.fixture
    def pairs(self, on_fake):
        """Of what came after the store was filled."""
        fake_checkpoints.calls.clear()

        def seen():
            asked = [call for call in fake_checkpoints.calls if call["task"] == "query"]
            return Counter((text, call["instruction"]) for call in asked for text in call["text"])

        return seen

    async def test_ainvoke(self, on_fake, pairs):
        retriever = ALM2VecRetriever(vectorstore=on_fake, k=1)
        await asyncio.gather(*(retriever.ainvoke(text, instruction=one) for text, one in self.QUERIES))
        assert pairs() == Counter(self.QUERIES)

    async def test_abatch(self, on_fake, pairs):
        queries = [{"text": text, "instruction": one} for text, one in self.QUERIES]
        await ALM2VecRetriever(vectorstore=on_fake, k=1).abatch(queries)
        assert pairs() == Counter(self.QUERIES)

    def test_batch(self, on_fake, pairs):
        queries = [{"text": text, "instruction": one} for text, one in self.QUERIES]
        ALM2VecRetriever(vectorstore=on_fake, k=1).batch(queries)
        assert pairs() == Counter(self.QUERIES)
        assert not fake_checkpoints.overlapping.is_set()

    def test_threads(self, on_fake, pairs):
        """Plain ones, which know nothing of contexts."""
        retriever = ALM2VecRetriever(vectorstore=on_fake, k=1)
        threads = [
            threading.Thread(target=retriever.invoke, args=(text,), kwargs={"instruction": one})
            for text, one in self.QUERIES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pairs() == Counter(self.QUERIES)


@stores.with_each_store
class TestWhatIsOpened:
    """Nothing outside the roots, whichever way it is named."""

    @pytest.fixture
    def outside(self, tmp_path):
        return sounds.write(tmp_path / "outside.wav", sounds.noise(0.5))

    @pytest.fixture
    def opened(self, monkeypatch, outside):
        """Whether the file outside was, since last asked."""
        paths, real = [], os.open
        monkeypatch.setattr(os, "open", lambda path, *rest, **how: paths.append(str(path)) or real(path, *rest, **how))

        def was_opened():
            found = str(outside) in paths
            paths.clear()
            return found

        return was_opened

    async def test_references_urls_and_texts(self, on_fake, outside, opened):
        retriever = ALM2VecRetriever(vectorstore=on_fake, k=1)
        reference = AudioClip(outside).reference(digest=False)
        link = Path(on_fake.embeddings.allowed_audio_roots) / "link.wav"
        link.symlink_to(outside)
        for content in (reference, AudioClip(link).reference(digest=False)):
            with pytest.raises(AudioAccessError, match=r"item 1, .*outside"):
                on_fake.add_documents([Document("a text"), Document(content)])
            with pytest.raises(AudioAccessError, match=r"item 1, .*outside"):
                await on_fake.aadd_documents([Document("a text"), Document(content)])
            with pytest.raises(AudioAccessError, match="outside"):
                await retriever.ainvoke({"audio": content})
            with pytest.raises(AudioAccessError, match="outside"):
                ALM2VecReranker(embeddings=on_fake.embeddings).compress_documents([Document(content)], "q")
            with pytest.raises(AudioAccessError, match="outside"):
                to_audio_block(Document(content), allowed_audio_roots=on_fake.embeddings.allowed_audio_roots)
        for url in ("audio:http://example.org/a.wav", "audio:file:///etc/passwd"):
            with pytest.raises(InputError, match=r"item 0, .*URLs are not opened"):
                on_fake.add_documents([Document(url)])
        fake_checkpoints.calls.clear()
        for text in (reference, str(outside), "http://example.org/a.wav"):
            assert len(retriever.invoke(text)) == len(await retriever.ainvoke(text)) == 1
            if text != reference:
                on_fake.add_documents([Document(text)])
        assert not any("audio" in call for call in fake_checkpoints.calls)
        assert not opened()
        assert retriever.invoke({"audio": outside})  # a path that code gives
        assert opened()


@stores.with_each_store
class TestIndexing:
    """`index` encodes what is new, and only that."""

    @pytest.fixture
    def world(self, name, fake, tmp_path):
        folder = tmp_path / "sounds"
        for i in range(3):
            sounds.write(folder / f"{i}.wav", sounds.noise(2.0, seed=i))
        embeddings = ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=folder)
        fake_checkpoints.loaded(embeddings._core())
        manager = InMemoryRecordManager("sounds")
        manager.create_schema()
        with stores.empty(name, embeddings, fake_checkpoints.DIM) as store:
            yield folder, store, manager

    async def updated(self, world, asynchronous):
        """What `index` says it did, and how many recordings were encoded for it."""
        folder, store, manager = world
        fake_checkpoints.calls.clear()
        how = {"cleanup": "full", "source_id_key": "source", "key_encoder": audio_key_encoder}
        loader = AudioLoader(folder)
        did = await (aindex(loader, manager, store, **how) if asynchronous else asyncio.to_thread(
            index, loader, manager, store, **how))  # fmt: skip
        encoded = sum(len(call.get("audio", [])) for call in fake_checkpoints.calls)
        return {key: count for key, count in did.items() if count}, encoded

    @pytest.mark.parametrize("asynchronous", [False, True])
    async def test_unchanged_changed_and_deleted(self, world, asynchronous):
        folder, store, _ = world
        assert await self.updated(world, asynchronous) == ({"num_added": 3}, 3)
        assert await self.updated(world, asynchronous) == ({"num_skipped": 3}, 0)
        sounds.write(folder / "1.wav", sounds.noise(2.0, seed=11))  # same name, same length
        assert await self.updated(world, asynchronous) == ({"num_added": 1, "num_skipped": 2, "num_deleted": 1}, 1)
        (folder / "2.wav").unlink()
        assert await self.updated(world, asynchronous) == ({"num_skipped": 2, "num_deleted": 1}, 0)
        found = ALM2VecRetriever(vectorstore=store, k=9).invoke("anything")
        assert sorted(one.page_content for one in found) == sorted(
            AudioClip(folder / f"{i}.wav", start_seconds=0, end_seconds=2).reference() for i in (0, 1)
        )
