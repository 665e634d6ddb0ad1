"""What goes wrong without a word behind LangChain, each shown to go wrong in a naive wrapper."""

import asyncio
import copy
import threading
import uuid

import fake_checkpoints
import naive_langchain
import pytest
import sounds
from langchain_core.documents import Document
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore

import alm2vec_integrations.langchain as ours
from alm2vec_integrations import QUERY_INSTRUCTION, AudioAccessError, AudioClip, InputError


class World:
    """A door and what the traps need of it."""

    def __init__(self, door, fake, folder):
        self.door, self.fake, self.folder = door, fake, folder
        self.embeddings = door.ALM2VecEmbeddings(model=str(fake), trust_remote_code=True, allowed_audio_roots=[folder])
        self.store = InMemoryVectorStore(self.embeddings)
        self.store.add_texts([f"text {i}" for i in range(6)])
        fake_checkpoints.calls.clear()

    @property
    def retriever(self):
        return self.door.ALM2VecRetriever(vectorstore=self.store)

    def asked(self):
        calls = [call for call in fake_checkpoints.calls if call["task"] == "query" and "text" in call]
        return [(text, call["instruction"]) for call in calls for text in call["text"]]


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        sounds.write(tmp_path / "sounds" / f"{i}.wav", sounds.noise(3.0, seed=i))
    return tmp_path / "sounds"


def an_async_call_has_its_instruction(world):
    asyncio.run(world.retriever.ainvoke("q", instruction="i"))
    assert world.asked() == [("q", "i")]


def instructions_do_not_leak_side_by_side(world):
    """All calls have said theirs before the first is embedded."""
    together = threading.Barrier(4, timeout=5)

    class Waiting(InMemoryVectorStore):
        def similarity_search(self, query, k=4, **keywords):
            together.wait()
            return super().similarity_search(query, k, **keywords)

    world.store = Waiting(world.embeddings)
    world.store.add_texts(["a"])
    fake_checkpoints.calls.clear()
    retriever = world.retriever
    threads = [
        threading.Thread(target=retriever.invoke, args=(f"q{i}",), kwargs={"instruction": f"i{i}"}) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(world.asked()) == [(f"q{i}", f"i{i}") for i in range(4)]


def with_instructions_leaves_the_original_alone(world):
    world.embeddings.with_instructions(query="other")
    world.embeddings.embed_query("q")
    assert world.asked() == [("q", QUERY_INSTRUCTION)]


def k_is_heeded(world):
    assert len(world.retriever.invoke("q", k=1)) == 1


def a_misspelt_keyword_is_refused(world):
    with pytest.raises(InputError):
        world.retriever.invoke("q", instructions="i")


def a_misplaced_keyword_is_refused(world):
    with pytest.raises(InputError):
        world.retriever.invoke("q", top_k=1)


def a_misspelt_key_is_refused(world):
    with pytest.raises(InputError):
        world.retriever.invoke({"text": "q", "instructions": "i"})


def a_misspelt_field_is_refused(world):
    with pytest.raises(ValueError, match="instructions"):
        world.door.ALM2VecRetriever(vectorstore=world.store, instructions="i")


def a_clip_and_a_question_are_one_query(world):
    world.retriever.invoke({"audio": world.folder / "0.wav", "text": "who?"})
    assert [call["text"] for call in fake_checkpoints.calls if "audio" in call] == [["who?"]]


def a_query_is_never_opened(world):
    path = str(world.folder / "0.wav")
    for text in (path, AudioClip(path).reference()):
        world.retriever.invoke(text)
    assert not any("audio" in call for call in fake_checkpoints.calls)


def a_text_that_names_a_file_is_text(world):
    world.embeddings.embed_documents([str(world.folder / "0.wav")])
    assert not any("audio" in call for call in fake_checkpoints.calls)


def references_outside_the_roots_are_refused(world):
    outside = sounds.write(world.folder.parent / "outside.wav", sounds.noise(0.5))
    with pytest.raises(AudioAccessError):
        world.embeddings.embed_documents([AudioClip(outside).reference()])


def urls_are_refused(world):
    with pytest.raises(InputError):
        world.embeddings.embed_documents(["audio:http://example.org/a.wav"])


def half_a_reference_is_no_text(world):
    with pytest.raises(InputError):
        world.embeddings.embed_documents([AudioClip(world.folder / "0.wav").reference()[:-3]])


def a_changed_file_is_another_document(world):
    before = world.door.AudioLoader(world.folder).load()[0]
    sounds.write(world.folder / "0.wav", sounds.noise(3.0, seed=9))
    after = world.door.AudioLoader(world.folder).load()[0]
    assert before.page_content != after.page_content


def a_stale_reference_is_refused(world):
    reference = world.door.AudioLoader(world.folder).load()[0].page_content
    sounds.write(world.folder / "0.wav", sounds.noise(3.0, seed=9))
    with pytest.raises(AudioAccessError):
        world.embeddings.embed_documents([reference])


def long_recordings_are_cut(world):
    assert len(world.door.AudioLoader(world.folder, segment_seconds=1).load()) == 9


def metadata_are_flat(world):
    for document in world.door.AudioLoader(world.folder).load():
        assert {type(value) for value in document.metadata.values()} <= {str, float}


def metadata_have_times_and_a_transcript(world):
    for document in world.door.AudioLoader(world.folder).load():
        assert set(document.metadata) == {"source", "start_seconds", "end_seconds", "mime_type", "transcript"}


def wav_is_audio_wav(world):
    assert {one.metadata["mime_type"] for one in world.door.AudioLoader(world.folder).load()} == {"audio/wav"}


def references_are_not_split(world):
    class InTwo:
        def split_documents(self, documents):
            return [Document(one.page_content[half]) for one in documents for half in (slice(9), slice(9, None))]

    with pytest.raises(InputError):
        world.door.AudioLoader(world.folder).load_and_split(InTwo())


def keys_are_uuids(world):
    assert uuid.UUID(world.door.audio_key_encoder(Document("x")))


def metadata_are_part_of_a_key(world):
    key = world.door.audio_key_encoder
    assert key(Document("x", metadata={"a": 1})) != key(Document("x", metadata={"a": 2}))


def a_cache_is_told_apart_by_instruction(world):
    names = {world.embeddings.with_instructions(document=one).cache_namespace for one in ("", "a", "b")}
    assert len(names) == 3


def a_store_that_never_asks_is_noticed(world):
    class ByWords(InMemoryVectorStore):
        def similarity_search(self, query, k=4, **keywords):
            return self.get_by_ids(list(self.store))

    world.store = ByWords(world.embeddings)
    world.store.add_texts(["a"])
    with pytest.raises(InputError):
        world.retriever.invoke("q", instruction="i")


def copies_share_the_model(world):
    first = world.embeddings
    assert copy.copy(first).embed_query("q") == first.embed_query("q")
    cores = [getattr(one, "encoder", None) or one._core() for one in (first, copy.copy(first))]
    assert cores[0] is cores[1]


def empty_lists_load_nothing(world):
    fake_checkpoints.loads.clear()
    other = world.folder.parent / "other"
    fake_checkpoints.write(other)
    embeddings = world.door.ALM2VecEmbeddings(model=str(other), trust_remote_code=True)
    assert embeddings.embed_documents([]) == []
    assert fake_checkpoints.loads == []


def newlines_are_left_alone(world):
    world.embeddings.embed_query("a\nb")
    assert world.asked() == [("a\nb", QUERY_INSTRUCTION)]


def a_tool_can_be_instructed(world):
    tool = create_retriever_tool(world.retriever.bind(instruction="i"), "sounds", "finds sounds")
    assert "text" in asyncio.run(tool.ainvoke({"query": "q"}))
    assert world.asked() == [("q", "i")]


def a_block_is_the_segment_and_no_more(world):
    reference = AudioClip(world.folder / "0.wav", start_seconds=1, end_seconds=2).reference()
    block = world.door.to_audio_block(Document(reference), allowed_audio_roots=world.folder)
    assert len(block["base64"]) == pytest.approx(4 / 3 * 32_044, abs=4)


def a_block_is_audio_wav(world):
    reference = AudioClip(world.folder / "0.wav").reference()
    block = world.door.to_audio_block(Document(reference), allowed_audio_roots=world.folder)
    assert block["mime_type"] == "audio/wav"


def blocks_are_of_allowed_files(world):
    secret = world.folder.parent / "secret.txt"
    secret.write_text("secret")
    with pytest.raises(AudioAccessError):
        world.door.to_audio_block(Document(f"audio:{secret}"), allowed_audio_roots=world.folder)


def reranking_changes_nothing_in_place(world):
    documents = [Document("a"), Document("b")]
    world.door.ALM2VecReranker(embeddings=world.embeddings).compress_documents(documents, "q")
    assert [one.metadata for one in documents] == [{}, {}]


def reranking_takes_a_clip(world):
    reranker = world.door.ALM2VecReranker(embeddings=world.embeddings)
    assert len(reranker.compress_documents([Document("a"), Document("b")], {"audio": world.folder / "0.wav"})) == 2


# Where the naive wrapper stops, and with what.
TRAPS = {
    an_async_call_has_its_instruction: (AssertionError, r"== \[\('q', 'i'\)\]"),
    instructions_do_not_leak_side_by_side: (AssertionError, r"== \[\('q0', 'i0'\)"),
    with_instructions_leaves_the_original_alone: (AssertionError, r"\('q', 'other'\)"),
    k_is_heeded: (AssertionError, "assert 4 == 1"),
    a_misspelt_keyword_is_refused: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    a_misplaced_keyword_is_refused: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    a_misspelt_key_is_refused: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    a_misspelt_field_is_refused: (pytest.fail.Exception, r"DID NOT RAISE .*ValueError"),
    a_clip_and_a_question_are_one_query: (AssertionError, r"assert \[\] == \[\['who\?'\]\]"),
    a_query_is_never_opened: (AssertionError, "assert not True"),
    a_text_that_names_a_file_is_text: (AssertionError, "assert not True"),
    references_outside_the_roots_are_refused: (pytest.fail.Exception, r"DID NOT RAISE .*AudioAccessError"),
    urls_are_refused: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    half_a_reference_is_no_text: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    a_changed_file_is_another_document: (AssertionError, "!="),
    a_stale_reference_is_refused: (pytest.fail.Exception, r"DID NOT RAISE .*AudioAccessError"),
    long_recordings_are_cut: (AssertionError, "assert 3 == 9"),
    metadata_are_flat: (AssertionError, "PosixPath"),
    metadata_have_times_and_a_transcript: (AssertionError, "transcript"),
    wav_is_audio_wav: (AssertionError, "== {'audio/wav'}"),
    references_are_not_split: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    keys_are_uuids: (ValueError, "badly formed hexadecimal UUID"),
    metadata_are_part_of_a_key: (AssertionError, "!="),
    a_cache_is_told_apart_by_instruction: (AssertionError, "assert 1 == 3"),
    a_store_that_never_asks_is_noticed: (pytest.fail.Exception, r"DID NOT RAISE .*InputError"),
    copies_share_the_model: (AssertionError, " is "),
    empty_lists_load_nothing: (AssertionError, r"== \[\]"),
    newlines_are_left_alone: (AssertionError, "'a b'"),
    a_tool_can_be_instructed: (AssertionError, r"== \[\('q', 'i'\)\]"),
    a_block_is_the_segment_and_no_more: (AssertionError, "assert 128060 =="),
    a_block_is_audio_wav: (AssertionError, "== 'audio/wav'"),
    blocks_are_of_allowed_files: (pytest.fail.Exception, r"DID NOT RAISE .*AudioAccessError"),
    reranking_changes_nothing_in_place: (AssertionError, r"== \[\{\}, \{\}\]"),
    reranking_takes_a_clip: (AttributeError, "'dict' object has no attribute"),
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_ours_falls_into_none(trap, fake, folder):
    trap(World(ours, fake, folder))


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_naive_wrapper_falls_into_each(trap, fake, folder):
    """So the check can fail, and for its own reason."""
    world = World(naive_langchain, fake, folder)
    kind, message = TRAPS[trap]
    with pytest.raises(kind, match=message) as caught:
        trap(world)
    assert type(caught.value) is kind


class TestStock:
    """LangChain's own retriever over our embeddings, which is why there is another."""

    def test_an_instruction_is_dropped(self, fake, folder):
        world = World(ours, fake, folder)
        assert world.store.as_retriever().invoke("q", instruction="i")
        assert world.asked() == [("q", QUERY_INSTRUCTION)]

    def test_k_is_dropped(self, fake, folder):
        world = World(ours, fake, folder)
        assert len(world.store.as_retriever(k=1).invoke("q")) == 4
        assert len(ours.ALM2VecRetriever(vectorstore=world.store, k=1).invoke("q")) == 1
