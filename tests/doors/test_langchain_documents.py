"""Recordings as documents, documents in another order, and documents as a chat model's message."""

import base64
import io
import json
import uuid
from pathlib import Path

import fake_checkpoints
import numpy as np
import pytest
import recordings
import soundfile
import sounds
from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from pydantic import ValidationError

import alm2vec_integrations.langchain
from alm2vec_integrations import AudioAccessError, AudioClip, AudioError, AudioText, InputError, segment
from alm2vec_integrations.audio import access
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode
from alm2vec_integrations.audio.mime_types import MIME_TYPES
from alm2vec_integrations.audio.recordings import AUDIO_SUFFIXES
from alm2vec_integrations.langchain import (
    ALM2VecEmbeddings,
    ALM2VecReranker,
    AudioBlobParser,
    AudioLoader,
    audio_key_encoder,
    to_audio_block,
    to_audio_message,
)


def test_every_public_name_resolves():
    """The lazy table and the modules agree."""
    for name in alm2vec_integrations.langchain.__all__:
        assert getattr(alm2vec_integrations.langchain, name) is not None
    assert set(alm2vec_integrations.langchain.__all__) <= set(dir(alm2vec_integrations.langchain))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = alm2vec_integrations.langchain.nonsense


@pytest.fixture
def calls(tmp_path):
    """A folder with a recording of five seconds, one of two in a folder below, and a text."""
    sounds.write(tmp_path / "calls" / "a.wav", sounds.noise(5.0))
    sounds.write(tmp_path / "calls" / "more" / "b.flac", sounds.noise(2.0, seed=1))
    (tmp_path / "calls" / "notes.txt").write_text("notes")
    return tmp_path / "calls"


class TestLoader:
    def test_one_document_for_each_segment(self, calls):
        """In order, with a reference, flat metadata, and no id."""
        loader = AudioLoader(calls, segment_seconds=2, hop_seconds=1.5)
        assert isinstance(loader, BaseLoader)
        documents = loader.load()
        a, b = calls / "a.wav", calls / "more" / "b.flac"
        assert [one.metadata for one in documents] == [
            {"source": str(path), "start_seconds": start, "end_seconds": end, "mime_type": mime, "transcript": ""}
            for path, start, end, mime in [
                (a, 0.0, 2.0, "audio/wav"),
                (a, 1.5, 3.5, "audio/wav"),
                (a, 3.0, 5.0, "audio/wav"),
                (b, 0.0, 2.0, "audio/flac"),
            ]
        ]
        assert [one.page_content for one in documents] == [
            clip.reference() for clip in segment(calls, segment_seconds=2, hop_seconds=1.5)
        ]
        assert documents[1].page_content == f"audio:{a}#t=1.5,3.5&v={access.file_digest(str(a))}"
        assert [one.id for one in documents] == [None] * 4
        assert json.loads(json.dumps([one.metadata for one in documents])) == [one.metadata for one in documents]

    async def test_async_is_the_same(self, calls):
        assert await AudioLoader(calls, segment_seconds=2).aload() == AudioLoader(calls, segment_seconds=2).load()

    def test_it_is_lazy(self, calls):
        """A broken second file does not keep the first from being loaded; nothing is decoded."""
        (calls / "more" / "b.flac").write_bytes(b"nothing")
        lazy = AudioLoader(calls, segment_seconds=2).lazy_load()
        assert next(lazy).metadata["start_seconds"] == 0.0
        with pytest.raises(AudioError, match=r"b\.flac"):
            list(lazy)

    def test_errors_can_be_collected(self, calls, monkeypatch):
        """Of what cannot be read, and of what is gone once its header is read."""
        (calls / "0.wav").write_bytes(b"nothing")
        errors = []
        found = AudioLoader(calls, on_error=errors.append).load()
        assert [Path(one.metadata["source"]).name for one in found] == ["a.wav", "b.flac"]
        assert [Path(error.source).name for error in errors] == ["0.wav"]
        real = access.file_digest

        def gone(path):
            if path.endswith("a.wav"):
                raise AudioError("gone", source=path)
            return real(path)

        monkeypatch.setattr("alm2vec_integrations.langchain.documents.file_digest", gone)
        errors.clear()
        found = AudioLoader(calls, segment_seconds=2, on_error=errors.append).load()
        assert [Path(one.metadata["source"]).name for one in found] == ["b.flac"]
        assert [error.reason for error in errors if error.source.endswith("a.wav")] == ["gone"]
        (calls / "0.wav").unlink()
        with pytest.raises(AudioError, match="gone"):
            AudioLoader(calls).load()

    def test_a_file_is_hashed_once(self, tmp_path, monkeypatch):
        """For all its segments, though it is younger than what the core remembers digests of."""
        path = sounds.write(tmp_path / "long.wav", sounds.noise(60.0))
        hashed = []
        real = access._read_digest
        monkeypatch.setattr(access, "_read_digest", lambda file, name: hashed.append(name) or real(file, name))
        assert len(AudioLoader(path, segment_seconds=1).load()) == 60
        assert hashed == [str(path)]
        hashed.clear()
        for clip in segment(path, segment_seconds=1):
            clip.reference()
        assert len(hashed) == 60  # so the check can fail

    def test_transcripts(self, calls):
        """Of every segment, which is handed over as a clip that can be decoded."""

        def transcribe(clip):
            assert len(decode(clip, AccessPolicy())) == round((clip.end_seconds - clip.start_seconds) * 16_000)
            return f"from {clip.start_seconds:g}"

        documents = AudioLoader(calls / "a.wav", segment_seconds=2, transcribe=transcribe).load()
        assert [one.metadata["transcript"] for one in documents] == ["from 0", "from 2", "from 4"]
        with pytest.raises(InputError, match=r"a\.wav \[0-2 s\]: transcribe must return a str, got NoneType"):
            AudioLoader(calls, segment_seconds=2, transcribe=lambda clip: None).load()
        with pytest.raises(ZeroDivisionError) as caught:
            AudioLoader(calls, segment_seconds=2, transcribe=lambda clip: 1 / 0).load()
        assert caught.value.__notes__ == [f"while transcribing {calls / 'a.wav'} [0-2 s]"]

    def test_references_are_not_split(self, calls):
        """No splitter is the loader's own; another is refused."""
        loader = AudioLoader(calls, segment_seconds=2)
        assert loader.load_and_split() == loader.load()
        with pytest.raises(InputError, match="would cut references"):
            loader.load_and_split(object())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"segment_seconds": 0}, "segment_seconds"),
            ({"hop_seconds": 31}, "would leave gaps"),
            ({"min_seconds": -1}, "min_seconds"),
            ({"transcribe": "whisper"}, "transcribe must be a function"),
            ({"on_error": "ignore"}, "on_error must be a function"),
        ],
    )
    def test_arguments_are_checked_at_once(self, calls, arguments, message):
        with pytest.raises(InputError, match=message):
            AudioLoader(calls, **arguments)
        if "on_error" not in arguments:
            with pytest.raises(InputError, match=message):
                AudioBlobParser(**arguments)

    def test_what_is_no_path(self):
        for wrong, message in (
            (AudioClip("x.wav"), "for a clip"),
            (3, "a file or a folder"),
            ("", "a file or a folder"),
            ("http://example.org/a.wav", "download"),
        ):
            with pytest.raises(InputError, match=message):
                AudioLoader(wrong)
        with pytest.raises(AudioError, match="cannot be opened"):
            AudioLoader("missing.wav").load()


class TestBlobs:
    def test_as_the_loader(self, calls):
        """With the blob's own metadata beside."""
        parser = AudioBlobParser(segment_seconds=2)
        assert isinstance(parser, BaseBlobParser)
        path = calls / "a.wav"
        assert parser.parse(Blob.from_path(path)) == AudioLoader(path, segment_seconds=2).load()
        found = parser.parse(Blob.from_path(path, metadata={"source": "monday", "caller": "x"}))
        assert [(one.metadata["source"], one.metadata["caller"]) for one in found] == [("monday", "x")] * 3
        assert found[0].page_content == AudioLoader(path, segment_seconds=2).load()[0].page_content

    def test_wav_is_audio_wav(self, calls):
        """Whatever this Python calls it, and a type that was given is kept."""
        path = calls / "a.wav"
        for given, expected in (("audio/x-wav", "audio/wav"), ("audio/l16", "audio/l16"), (None, "audio/wav")):
            blob = Blob.from_path(path, mime_type=given, guess_type=False)
            assert {one.metadata["mime_type"] for one in AudioBlobParser().parse(blob)} == {expected}

    def test_every_ending_has_a_type(self):
        assert set(MIME_TYPES) == AUDIO_SUFFIXES

    def test_a_reference_must_lead_somewhere(self, calls, tmp_path):
        """Bytes without a path, and bytes that are not those at their path."""
        path = calls / "a.wav"
        parser = AudioBlobParser(segment_seconds=2)
        with pytest.raises(InputError, match="write its bytes to one"):
            parser.parse(Blob.from_data(path.read_bytes()))
        with pytest.raises(InputError, match=r"a\.wav: the blob's bytes are not those of the file"):
            parser.parse(Blob.from_data(b"other", path=str(path)))
        assert len(parser.parse(Blob.from_data(path.read_bytes(), path=str(path)))) == 3
        with pytest.raises(AudioError, match="is a directory"):
            parser.parse(Blob.from_path(calls))
        with pytest.raises(InputError, match="download"):
            parser.parse(Blob(path="http://example.org/a.wav"))

    def test_with_langchains_own_loader(self, calls):
        """Blobs of a folder."""
        pytest.importorskip("langchain_community")
        from langchain_community.document_loaders.blob_loaders import FileSystemBlobLoader
        from langchain_community.document_loaders.generic import GenericLoader

        loader = GenericLoader(FileSystemBlobLoader(calls, glob="**/*.wav"), AudioBlobParser(segment_seconds=2))
        assert loader.load() == AudioLoader(calls / "a.wav", segment_seconds=2).load()


class TestKeys:
    def test_a_key_for_each_content_and_metadata(self, calls):
        """UUIDs that are the same in every run."""
        documents = AudioLoader(calls, segment_seconds=2).load()
        keys = [audio_key_encoder(one) for one in documents]
        assert len({str(uuid.UUID(key)) for key in keys}) == len(documents) == 4
        assert keys == [audio_key_encoder(one) for one in AudioLoader(calls, segment_seconds=2).load()]
        sounds.write(calls / "a.wav", sounds.noise(5.0, seed=9))
        changed = [audio_key_encoder(one) for one in AudioLoader(calls, segment_seconds=2).load()]
        assert [one == other for one, other in zip(keys, changed, strict=True)] == [False, False, False, True]
        assert audio_key_encoder(Document("x", id="1")) == audio_key_encoder(Document("x", id="2"))
        assert audio_key_encoder(Document("x", metadata={"a": 1, "b": 2})) == audio_key_encoder(
            Document("x", metadata={"b": 2, "a": 1})
        )
        assert audio_key_encoder(Document("x", metadata={"a": 1})) == "0097ea2f-cba1-5535-8d9b-5e479f243571"

    def test_metadata_must_be_json(self):
        with pytest.raises(InputError, match="x: metadata must be JSON"):
            audio_key_encoder(Document("x", metadata={"a": object()}))


@pytest.fixture
def embeddings(fake, clips):
    return ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent)


class TestReranker:
    @pytest.fixture
    def documents(self, clips):
        return [
            Document("male", id="1"),
            *(Document(AudioClip(one).reference(), metadata={"n": 1}) for one in clips[:3]),
        ]

    async def both(self, reranker, documents, query):
        found = reranker.compress_documents(documents, query)
        assert await reranker.acompress_documents(documents, query) == found
        return [(one.page_content, one.metadata["relevance_score"]) for one in found]

    @pytest.mark.parametrize("question", [None, "who?"])
    async def test_as_the_core(self, embeddings, documents, clips, question):
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
            expected = core.rerank(item, candidates, question=asked, instruction="i", top_n=3)
            assert await self.both(reranker, documents, query) == [
                (documents[one.index].page_content, one.score) for one in expected
            ]

    async def test_nothing_is_changed_in_place(self, embeddings, documents):
        """Copies, with what documents had."""
        before = [one.model_copy(deep=True) for one in documents]
        found = ALM2VecReranker(embeddings=embeddings).compress_documents(documents, "q")
        assert documents == before
        assert {one.id for one in found} == {"1", None}
        assert all(one.metadata.get("n") == 1 for one in found if one.id is None)

    def test_instructions_of_the_embeddings(self, embeddings, documents):
        """Those of queries and of documents, as in the store."""
        own = embeddings.with_instructions(query="asked", document="stored")
        ALM2VecReranker(embeddings=own).compress_documents(documents, "q")
        assert {
            (call["task"], call["instruction"]) for call in fake_checkpoints.calls if "q" in call.get("text", [])
        } == {("query", "asked")}
        assert {call["instruction"] for call in fake_checkpoints.calls if call["task"] == "document"} >= {"stored"}
        fake_checkpoints.calls.clear()
        ALM2VecReranker(embeddings=own, instruction="field").compress_documents(
            documents, {"text": "q", "instruction": "item"}
        )
        assert {call["instruction"] for call in fake_checkpoints.calls} == {"item", "stored"}

    async def test_refusals_name_the_document(self, embeddings, documents, tmp_path):
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
        with pytest.raises(InputError, match="top_n"):
            ALM2VecReranker(embeddings=embeddings, top_n=0).compress_documents(documents, "q")
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
    def test_two_questions_swap_the_first(self, tiny, library, question, expected):
        """Of what a store without a question found, by LangChain's own retriever with a compressor."""
        pytest.importorskip("langchain_classic")
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_core.vectorstores import InMemoryVectorStore

        from alm2vec_integrations.langchain import ALM2VecRetriever

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


class TestChat:
    def test_a_segment_as_a_block(self, tmp_path):
        """What the model is embedded with: cut, mixed down, 16 kHz, PCM16."""
        path = recordings.write(tmp_path / "a.flac", "flac 24", seconds=3.0)
        (_, document, _) = AudioLoader(path, segment_seconds=1, min_seconds=0.5).load()
        block = to_audio_block(document, allowed_audio_roots=tmp_path)
        assert (block["type"], block["mime_type"]) == ("audio", "audio/wav")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(block["base64"])), dtype="int16")
        assert rate == 16_000
        assert np.array_equal(samples, decode(AudioClip(path, start_seconds=1, end_seconds=2), AccessPolicy()))
        assert len(samples) == 16_000

    def test_a_message_pairs_each_clip_with_a_label(self, clips):
        """Its source and times; texts as texts."""
        clip = AudioClip(clips[2], start_seconds=0.1, end_seconds=0.4)
        documents = [
            Document(AudioClip(clips[0]).reference()),
            Document("a note", metadata={"source": "notes.txt"}),
            Document("another"),
            Document(clip.reference()),
        ]
        message = to_audio_message("Who calls?", documents, allowed_audio_roots=clips[0].parent)
        assert message.type == "human"
        blocks = message.content_blocks
        assert [block["type"] for block in blocks] == ["text", "text", "audio", "text", "text", "text", "audio"]
        assert [block["text"] for block in blocks if block["type"] == "text"] == [
            "Who calls?",
            f"[1] {clips[0]}:",
            "[2] notes.txt:\na note",
            "[3]:\nanother",
            f"[4] {clips[2]} [0.1-0.4 s]:",
        ]
        audio = [block["base64"] for block in blocks if block["type"] == "audio"]
        roots = {"allowed_audio_roots": clips[0].parent}
        assert audio == [to_audio_block(documents[i], **roots)["base64"] for i in (0, 3)]

    def test_a_provider_can_read_it(self, clips):
        """LangChain's own translation for OpenAI's models, which take no URL and no x-wav."""
        from langchain_core.messages import convert_to_openai_messages

        message = to_audio_message(
            "?", [Document(AudioClip(clips[0]).reference())], allowed_audio_roots=clips[0].parent
        )
        audio = convert_to_openai_messages(message)["content"][2]
        assert audio["type"] == "input_audio"
        assert audio["input_audio"]["format"] == "wav"

    def test_refusals(self, clips, tmp_path):
        """Outside the roots, changed, cut off, a URL, or text; in a message with its place."""
        roots = {"allowed_audio_roots": clips[0].parent}
        outside = sounds.write(tmp_path / "outside.wav", sounds.noise(0.5))
        changed = AudioClip(clips[1]).reference()
        clips[1].write_bytes(clips[0].read_bytes())
        for content, kind, message in (
            (AudioClip(outside).reference(), AudioAccessError, "outside"),
            (changed, AudioAccessError, "have changed"),
            (AudioClip(clips[0]).reference()[:-2], InputError, "malformed"),
            ("audio:http://example.org/a.wav", InputError, "download"),
        ):
            with pytest.raises(kind, match=message):
                to_audio_block(Document(content), **roots)
            with pytest.raises(kind, match=rf"^item 1, .*{message}"):
                to_audio_message("?", [Document("a text"), Document(content)], **roots)
        with pytest.raises(InputError, match="to_audio_message takes both"):
            to_audio_block(Document("a text"), **roots)
        with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
            to_audio_block(Document(AudioClip(clips[0]).reference()), allowed_audio_roots=None)
        with pytest.raises(InputError, match="non-empty"):
            to_audio_message(" ", [], **roots)
