"""The converter, the splitter and what may be opened behind Haystack."""

import contextlib
import copy
import hashlib
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import fake_checkpoints
import numpy as np
import pytest
import recordings
import sounds
from haystack import Document
from haystack.components.routers import FileTypeRouter
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice

from alm2vec_integrations import ALM2VecEncoder, AudioAccessError, AudioClip, AudioError, InputError
from alm2vec_integrations._haystack.mime_types import of_path
from alm2vec_integrations.audio import workspace
from alm2vec_integrations.audio.recordings import AUDIO_SUFFIXES
from alm2vec_integrations.haystack import (
    ALM2VecDocumentEmbedder,
    ALM2VecQueryEmbedder,
    AudioFileToDocument,
    AudioSplitter,
)

HOME = "haystack_integrations.components"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.fixture
def long(tmp_path):
    """A recording of 7.5 seconds."""
    return sounds.write(tmp_path / "long.wav", sounds.noise(7.5, seed=3))


class TestConverter:
    def convert(self, *sources, meta=None, **given):
        return AudioFileToDocument(**given).run(sources=list(sources), meta=meta)["documents"]

    def test_a_file_becomes_a_path(self, clips):
        """With its type, digest and length; the bytes stay where they are."""
        found = self.convert(clips[0], str(clips[1]))
        assert [document.meta for document in found] == [
            {
                "file_path": str(clip), "mime_type": "audio/wav", "audio_digest": digest(clip),
                "duration_seconds": seconds,
            }
            for clip, seconds in zip(clips[:2], (0.5, 0.63), strict=True)
        ]  # fmt: skip
        assert [(document.content, document.blob) for document in found] == [(None, None)] * 2

    def test_bytes_stay_bytes(self, clips):
        """Where there is no path, or the file there is another one."""
        data = clips[0].read_bytes()
        for meta in ({}, {"file_path": "none.wav"}, {"file_path": str(clips[1])}):
            (found,) = self.convert(ByteStream(data, mime_type="audio/x-wav", meta=meta))
            assert found.blob == ByteStream(data, mime_type="audio/x-wav")
            assert found.meta == meta | {
                "mime_type": "audio/x-wav", "audio_digest": digest(clips[0]), "duration_seconds": 0.5
            }  # fmt: skip

    def test_bytes_of_a_file_become_its_path(self, clips):
        """As FileTypeRouter hands on files whose meta it is given."""
        router = FileTypeRouter(mime_types=["audio/.*"])
        routed = router.run(sources=[clips[0]], meta={"speaker": "a"})["audio/.*"]
        assert isinstance(routed[0], ByteStream)
        (found,) = self.convert(*routed, root_path=clips[0].parent)
        assert (found.blob, found.meta["file_path"], found.meta["speaker"]) == (None, str(clips[0]), "a")

    @pytest.mark.parametrize("root", [None, "other", "."])
    def test_files_that_meta_names(self, clips, tmp_path, monkeypatch, root):
        """Are looked at inside the root alone, so whoever sends bytes learns nothing of what else lies there."""
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "link.wav").symlink_to(clips[0])
        opened, real = [], os.open
        names = {str(clips[0]), clips[0].name, "link.wav"}
        monkeypatch.setattr("os.open", lambda path, *a, **k: (opened.append(str(path)), real(path, *a, **k))[1])
        data = clips[0].read_bytes()
        for path in (clips[0], tmp_path / "other" / "link.wav", "/etc/passwd", "\0", "https://example.org/a.wav"):
            opened.clear()
            (found,) = self.convert(
                ByteStream(data, meta={"file_path": str(path)}), root_path=root and tmp_path / root, store_blob=False
            )
            inside = root == "." and str(path).startswith(str(tmp_path))
            assert (found.blob is None) == inside == bool(names & set(opened))
            assert "/etc/passwd" not in opened

    def test_what_ids_are_made_of(self, clips, caplog):
        """What reads the same in every run; other meta is a bad source, and none at all a mistake."""
        day = datetime(2024, 2, 29, tzinfo=UTC)
        meta = {"day": day, "path": Path("a"), "n": np.float32(0.5), "list": [1, {"a": None}]}
        ids = {self.convert(clips[0], meta=copy.deepcopy(meta))[0].id for _ in range(2)}
        assert len(ids) == 1
        assert self.convert(clips[0], meta=meta | {"day": day.replace(day=28)})[0].id not in ids
        for wrong in ({1: "a", "b": 2}, {"b": object()}, {"b": {1, 2}}, {"a": {1: "a", "b": 2}}):
            for source in (clips[0], ByteStream(clips[0].read_bytes())):
                with pytest.raises(InputError, match="gives no id that lasts"):
                    self.convert(source, meta=wrong, raise_on_failure=True)
                assert self.convert(source, meta=wrong) == []
            assert len(self.convert(*clips[:2], meta=[wrong, {}])) == 1
        assert "gives no id that lasts" in caplog.text
        with pytest.raises(TypeError, match="the meta of a source is a dict, got NoneType at 1"):
            self.convert(*clips[:2], meta=[{}, None])

    def test_bytes_on_request(self, clips):
        """Beside the path."""
        for source in (clips[0], ByteStream(clips[0].read_bytes(), meta={"file_path": str(clips[0])})):
            (found,) = self.convert(source, store_blob=True, root_path=clips[0].parent)
            assert found.blob == ByteStream(clips[0].read_bytes(), mime_type="audio/wav")
            assert found.meta["file_path"] == str(clips[0])

    def test_bad_files_are_skipped(self, clips, tmp_path, caplog):
        """With a warning that names each; or the first is raised."""
        broken, empty = tmp_path / "broken.wav", tmp_path / "empty.wav"
        broken.write_text("not a recording")
        empty.write_bytes(b"")
        bad = [broken, empty, tmp_path, tmp_path / "none.wav", "https://example.org/a.wav", ByteStream(b"x"), ""]
        with caplog.at_level(logging.WARNING):
            found = self.convert(*bad, clips[0], meta=[{"n": n} for n in range(8)])
        assert [document.meta["n"] for document in found] == [7]
        said = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
        assert len(said) == 7
        assert all(str(path) in text for path, text in zip(bad[:5], said, strict=False))
        for one in bad:
            with pytest.raises(InputError):
                self.convert(one, raise_on_failure=True)

    @pytest.mark.parametrize("wrong", [3, None, b"bytes"], ids=str)
    def test_what_is_no_source(self, wrong, clips):
        """Is not skipped: it is not a bad file but a mistake."""
        with pytest.raises(TypeError, match="a source is a path or a ByteStream"):
            self.convert(clips[0], wrong)
        with pytest.raises(TypeError, match="expects a list of sources"):
            AudioFileToDocument().run(sources=str(clips[0]))

    def test_meta(self, clips):
        """For all, or for each; under what is found out, and of another length an error."""
        assert [d.meta["a"] for d in self.convert(*clips[:2], meta={"a": 1})] == [1, 1]
        assert [d.meta["a"] for d in self.convert(*clips[:2], meta=[{"a": 1}, {"a": 2}])] == [1, 2]
        assert self.convert(clips[0], meta={"mime_type": "text/plain"})[0].meta["mime_type"] == "audio/wav"
        with pytest.raises(ValueError, match="must match the number of sources"):
            self.convert(*clips[:2], meta=[{}])

    def test_ids(self, tmp_path):
        """Other folders, other bytes and other meta are other documents; the same are the same."""
        a, b = (sounds.write(tmp_path / name / "clip.wav", sounds.noise(1.0, seed=1)) for name in "ab")
        first = [document.id for document in self.convert(a, b)]
        assert len(set(first)) == 2
        assert [document.id for document in self.convert(a, b)] == first
        assert self.convert(a, meta={"x": 1})[0].id != first[0]
        sounds.write(a, sounds.noise(1.0, seed=2))
        again = [document.id for document in self.convert(a, b)]
        assert (again[0] != first[0], again[1]) == (True, first[1])
        assert len({d.id for d in self.convert(*(ByteStream(p.read_bytes()) for p in (a, b)))}) == 2

    def test_every_kind_of_recording_has_a_type(self, tmp_path):
        """Of audio, the same on every machine, videos too; bytes without a name are audio all the same."""
        assert {of_path(f"x{ending}").partition("/")[0] for ending in AUDIO_SUFFIXES} == {"audio"}
        assert "audio/x-unnamed" not in {of_path(f"x{ending}") for ending in AUDIO_SUFFIXES}
        flac = recordings.write(tmp_path / "A.FLAC", "flac 16")
        odd = recordings.write(tmp_path / "odd.bin", "flac 16")
        video = ByteStream(flac.read_bytes(), mime_type="video/webm")
        found = self.convert(flac, odd, video, ByteStream(flac.read_bytes()))
        assert [document.meta["mime_type"] for document in found] == [
            "audio/flac", "audio/x-unnamed", "audio/webm", "audio/x-unnamed"
        ]  # fmt: skip
        assert all(ALM2VecDocumentEmbedder(model="alm2vec-tiny")._reader.is_audio(document) for document in found)

    def test_a_placeholder(self, clips):
        """In the content."""
        assert self.convert(clips[0], content_placeholder="[audio]")[0].content == "[audio]"

    def test_storing(self):
        """All arguments, back and forth."""
        data = {
            "type": f"{HOME}.converters.alm2vec.audio_file.AudioFileToDocument",
            "init_parameters": {
                "store_blob": True, "content_placeholder": "x", "root_path": "/root", "raise_on_failure": True
            },
        }  # fmt: skip
        assert AudioFileToDocument.from_dict(data).to_dict() == data
        defaults = {"store_blob": False, "content_placeholder": None, "root_path": None, "raise_on_failure": False}
        assert AudioFileToDocument().to_dict()["init_parameters"] == defaults


class TestSplitter:
    def test_segments(self, long, clips):
        """With times, places and ids that are the same in every run; what is no audio stays."""
        (document,) = AudioFileToDocument().run(sources=[long])["documents"]
        text = Document(content="a text", meta={"file_path": "a.txt"})
        before = copy.deepcopy([document, text])
        splitter = AudioSplitter(segment_seconds=3, root_path=long.parent)
        found = splitter.run(documents=[document, text])["documents"]
        assert [document, text] == before
        assert [one.meta for one in found[:-1]] == [
            document.meta | {"source_id": document.id, "split_id": n, "start_seconds": start, "end_seconds": end}
            for n, (start, end) in enumerate([(0.0, 3.0), (3.0, 6.0), (6.0, 7.5)])
        ]
        assert found[-1] is text
        assert len({one.id for one in found}) == 4
        again = AudioSplitter(segment_seconds=3, root_path=long.parent).run(documents=[document])["documents"]
        assert [one.id for one in again] == [one.id for one in found[:-1]]

    def test_overlap_and_rests(self, long):
        """As the core's `segment` has them."""
        document = Document(meta={"file_path": "long.wav"})
        for given, times in (
            ({"segment_seconds": 4, "hop_seconds": 2}, [(0, 4), (2, 6), (4, 7.5)]),
            ({"segment_seconds": 3, "min_seconds": 2}, [(0, 3), (3, 7.5)]),
            ({}, [(0, 7.5)]),
        ):
            found = AudioSplitter(root_path=long.parent, **given).run(documents=[document])["documents"]
            assert [(one.meta["start_seconds"], one.meta["end_seconds"]) for one in found] == times

    def test_blobs_and_parts(self, long):
        """Bytes are cut too, and a part within its times; the embedder hears exactly the segment."""
        blob = ByteStream(long.read_bytes(), mime_type="audio/wav")
        part = Document(blob=blob, meta={"start_seconds": 1.0, "end_seconds": 4.0})
        found = AudioSplitter(segment_seconds=2).run(documents=[part])["documents"]
        assert [(one.meta["start_seconds"], one.meta["end_seconds"]) for one in found] == [(1.0, 3.0), (3.0, 4.0)]
        assert all(one.blob is blob for one in found)

    def test_what_cannot_be_cut(self, clips, tmp_path, caplog):
        """Is named by its document; or left out with a warning."""
        documents = [
            Document(id="gone", meta={"file_path": "none.wav"}), Document(id="here", meta={"file_path": str(clips[0])})
        ]  # fmt: skip
        with pytest.raises(AudioError, match="item 0, document gone"):
            AudioSplitter(root_path=tmp_path).run(documents=documents)
        with caplog.at_level(logging.WARNING):
            found = AudioSplitter(root_path=tmp_path, raise_on_failure=False).run(documents=documents)["documents"]
        assert [one.meta["source_id"] for one in found] == ["here"]
        assert "document gone" in caplog.text
        with pytest.raises(TypeError, match="AudioSplitter expects a list of Documents"):
            AudioSplitter().run(documents=clips)

    def test_lengths_are_looked_at_at_once(self):
        """By the core."""
        for given, message in (
            ({"segment_seconds": 0}, "segment_seconds"), ({"segment_seconds": 2, "hop_seconds": 3}, "leave gaps"),
            ({"root_path": 3}, "root_path must be a folder"), ({"file_path_meta_field": None}, "file_path_meta_field"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=message):
                AudioSplitter(**given)

    def test_storing(self):
        """All arguments, back and forth."""
        given = {
            "segment_seconds": 5, "hop_seconds": 2.5, "min_seconds": 0.5, "file_path_meta_field": "path",
            "root_path": "/root", "raise_on_failure": False,
        }  # fmt: skip
        data = {"type": f"{HOME}.preprocessors.alm2vec.audio_splitter.AudioSplitter", "init_parameters": given}
        assert AudioSplitter.from_dict(data).to_dict() == data
        assert AudioSplitter().to_dict()["init_parameters"] == {
            "segment_seconds": 30, "hop_seconds": None, "min_seconds": 1.0, "file_path_meta_field": "file_path",
            "root_path": None, "raise_on_failure": True,
        }  # fmt: skip


@pytest.fixture
def embed(fake, tmp_path):
    """Embed documents on the fake model, with `tmp_path` as the root."""

    def embed(*documents, root_path=tmp_path, **given):
        embedder = ALM2VecDocumentEmbedder(
            model=fake, trust_remote_code=True, device=ComponentDevice.from_str("cpu"), progress_bar=False,
            root_path=root_path, **given,
        )  # fmt: skip
        return embedder.run(documents=list(documents))["documents"]

    return embed


class TestWhatIsOpened:
    """The embedder and the splitter alike."""

    @pytest.mark.parametrize("component", ["embedder", "splitter"])
    @pytest.mark.parametrize(
        ("path", "root", "message"),
        [
            ("clips/0.wav", None, "opened only inside root_path, and none is given"),
            ("../out.wav", "in", "outside root_path"),
            ("link.wav", "in", "outside root_path"),
            ("{tmp}/out.wav", "in", "outside root_path"),
            ("none.wav", "in", "No such file"),
            ("http://example.org/a.wav", "in", "download the file first"),
            ("https://example.org/a.wav", "in", "download the file first"),
            ("audio:0.wav", "in", "this is a reference"),
            ("", "in", "set one of them"),
        ],
    )
    def test_refusals(self, embed, tmp_path, path, root, message, component):
        """Nothing is read, and the document is named."""
        out = sounds.write(tmp_path / "out.wav", sounds.noise(1.0))
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link.wav").symlink_to(out)
        root_path = None if root is None else tmp_path / root
        document = Document(id="it", meta={"file_path": path.format(tmp=tmp_path), "mime_type": "audio/wav"})
        run = AudioSplitter(root_path=root_path).run if component == "splitter" else None
        with pytest.raises(InputError, match="document it.*" + message):
            run(documents=[document]) if run else embed(document, root_path=root_path)

    def test_a_changed_file_is_noticed(self, embed, tmp_path):
        """Its vector would be of another sound than the one that was converted."""
        path = sounds.write(tmp_path / "a.wav", sounds.noise(1.0, seed=1))
        documents = AudioFileToDocument().run(sources=[path])["documents"]
        assert embed(*documents)
        sounds.write(path, sounds.noise(1.0, seed=2))
        with pytest.raises(AudioAccessError, match="bytes have changed"):
            embed(*documents)

    def test_bytes_need_no_root(self, embed, clips):
        """They come with the document."""
        assert embed(Document(blob=ByteStream(clips[0].read_bytes(), mime_type="audio/wav")), root_path=None)

    def test_bytes_of_another_kind(self, embed):
        """Are neither text nor audio, and a path beside them does not make them so."""
        for meta in ({}, {"file_path": "a.pdf"}):
            with pytest.raises(InputError, match="blob is of type 'application/pdf'"):
                embed(Document(blob=ByteStream(b"%PDF", mime_type="application/pdf"), meta=meta))

    def test_audio_without_a_recording(self, embed):
        """A transcript alone is no audio."""
        with pytest.raises(InputError, match="no blob, and meta"):
            embed(Document(content="words", meta={"mime_type": "audio/wav"}))

    def test_times_that_are_none(self, embed, clips):
        """Are an error of the document."""
        with pytest.raises(InputError, match=r"document it.*start_seconds must be"):
            embed(Document(id="it", meta={"file_path": str(clips[0]), "start_seconds": "1"}))

    @pytest.mark.parametrize("fails", [False, True])
    def test_nothing_is_left_behind(self, embed, encoder, clips, tmp_path, monkeypatch, fails):
        """Temporary audio goes, also after an error in the model."""
        fake_checkpoints.loaded(encoder)  # which shares it
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setenv(workspace.SCRATCH_VARIABLE, str(scratch))
        seen = []

        def look(model, keywords):
            seen.extend(keywords.get("audio", []))
            if fails and seen:
                raise ZeroDivisionError

        monkeypatch.setattr(fake_checkpoints, "on_encode", look)
        blob = ByteStream(clips[1].read_bytes(), mime_type="audio/wav")
        with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
            embed(Document(meta={"file_path": str(clips[0])}), Document(blob=blob))
        assert seen
        assert not [path for path in seen if Path(path).exists()]


def test_large_blobs_have_cheap_ids():
    """Haystack's own id writes all bytes out as text first: 10 MB take a quarter of a second, for every document."""
    data = recordings.encode("wav 16", seconds=60.0)
    began = time.perf_counter()
    Document(blob=ByteStream(data, mime_type="audio/wav"))
    theirs = time.perf_counter() - began
    source = ByteStream(data, mime_type="audio/wav")
    began = time.perf_counter()
    AudioFileToDocument().run(sources=[source])
    ours = time.perf_counter() - began
    assert ours < theirs


def test_the_cores_vectors_for_segments(fake, long):
    """Slicing on the fly is the core's cut."""
    (document,) = AudioFileToDocument().run(sources=[long])["documents"]
    parts = AudioSplitter(segment_seconds=3, root_path=long.parent).run(documents=[document])["documents"]
    settings = {"model": fake, "trust_remote_code": True, "device": ComponentDevice.from_str("cpu")}
    embedder = ALM2VecDocumentEmbedder(root_path=long.parent, progress_bar=False, **settings)
    found = embedder.run(documents=parts)["documents"]
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        for start, one in zip((0.0, 3.0, 6.0), found, strict=True):
            end = min(start + 3, 7.5)
            expected = core.encode_document(AudioClip(long, start_seconds=start, end_seconds=end))
            assert one.embedding == expected.tolist()
        query = ALM2VecQueryEmbedder(progress_bar=False, **settings)
        assert query.run(audio=long)["embedding"] == core.encode_query(AudioClip(long)).tolist()
