"""Recordings as documents, and documents as a chat model's message."""

import base64
import io
import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import recordings
import soundfile
import sounds
from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob

import alm2vec_integrations.langchain
from alm2vec_integrations import AudioAccessError, AudioClip, AudioError, InputError, segment
from alm2vec_integrations.audio import access
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode
from alm2vec_integrations.audio.mime_types import MIME_TYPES
from alm2vec_integrations.audio.recordings import AUDIO_SUFFIXES
from alm2vec_integrations.langchain import (
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

    @pytest.mark.parametrize("suffix", [*sorted(MIME_TYPES), ".WAV", ".sound", ""])
    def test_whatever_python_guesses(self, calls, suffix):
        """Equal documents, and keys, for every ending; a type that was given for a blob changes nothing."""
        path = calls / f"x{suffix}"
        path.write_bytes((calls / "a.wav").read_bytes())
        expected = AudioLoader(path).load()
        for blob in (
            Blob.from_path(path),
            Blob.from_path(path, guess_type=False),
            Blob.from_path(path, mime_type="text/plain"),
            Blob.from_path(path, mime_type="audio/x-wav"),
        ):
            found = AudioBlobParser().parse(blob)
            assert found == expected
            assert [audio_key_encoder(one) for one in found] == [audio_key_encoder(one) for one in expected]

    def test_whose_metadata_count(self, calls):
        """The loader's, but for the source; and the blob's where the loader has none."""
        (expected,) = AudioLoader(calls / "more").load()
        theirs = {"source": "monday", "caller": "x", "start_seconds": 9, "mime_type": "text/plain", "transcript": "hi"}
        (found,) = AudioBlobParser().parse(Blob.from_path(calls / "more" / "b.flac", metadata=theirs))
        assert found.metadata == expected.metadata | {"source": "monday", "caller": "x"}

    def test_errors_can_be_collected(self, calls, monkeypatch):
        """As by the loader; but a blob that cannot be a document is a mistake, and a transcriber's error its own."""
        (calls / "bad.wav").write_bytes(b"nothing")
        errors = []
        parser = AudioBlobParser(on_error=errors.append)
        for name in ("bad.wav", "a.wav", "missing.wav"):
            assert len(parser.parse(Blob.from_path(calls / name))) == (name == "a.wav")
        assert parser.parse(Blob.from_data(b"x", path=str(calls / "missing.wav"))) == []
        assert [Path(error.source).name for error in errors] == ["bad.wav", "missing.wav", "missing.wav"]
        with pytest.raises(AudioError, match=r"bad\.wav"):
            AudioBlobParser().parse(Blob.from_path(calls / "bad.wav"))
        with pytest.raises(InputError, match="the blob has no path"):
            parser.parse(Blob.from_data(b"x"))

        def transcribe(clip):
            raise AudioError("deaf")

        for one in (AudioLoader(calls / "a.wav", transcribe=transcribe, on_error=errors.append).load,
                    lambda: AudioBlobParser(transcribe=transcribe, on_error=errors.append).parse(
                        Blob.from_path(calls / "a.wav"))):  # fmt: skip
            with pytest.raises(AudioError, match="deaf"):
                one()

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
        for wrong in (Document("a text"), "a text", None):
            with pytest.raises(InputError, match="documents must be a list of documents"):
                to_audio_message("?", wrong, **roots)
        with pytest.raises(InputError, match=r"^item 1: must be a Document, got str"):
            to_audio_message("?", [Document("a text"), "another"], **roots)
