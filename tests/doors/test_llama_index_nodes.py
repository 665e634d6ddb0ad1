"""Recordings as documents and nodes of LlamaIndex: reader, parser, node."""

import asyncio
import pickle
import uuid
from pathlib import Path

import pytest
import sounds
from llama_index.core import SimpleDirectoryReader
from llama_index.core.base.llms.types import AudioBlock, TextBlock
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import (
    JSONNodeParser,
    MarkdownNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
    TokenTextSplitter,
)
from llama_index.core.readers.base import ReaderConfig
from llama_index.core.schema import Document, MediaResource, MetadataMode, Node, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from pydantic import AnyUrl, ValidationError

from alm2vec_integrations import AudioAccessError, AudioClip, AudioError, InputError
from alm2vec_integrations.audio.access import file_digest
from alm2vec_integrations.llama_index import AudioNode, AudioNodeParser, AudioReader


@pytest.fixture
def long(tmp_path):
    return sounds.write(tmp_path / "calls" / "long.wav", sounds.noise(5.0))


def read(path):
    return AudioReader().load_data(path)


class TestReader:
    def test_by_the_directory_reader(self, clips):
        """One document a recording: by path, nothing decoded, with a digest that neither LLM nor model is shown."""
        reader = SimpleDirectoryReader(clips[0].parent, file_extractor={".wav": AudioReader()}, raise_on_error=True)
        documents = reader.load_data()
        assert [document.audio_resource.path for document in documents] == sorted(clips)
        one = documents[0]
        assert one.metadata["audio_digest"] == file_digest(str(clips[0]))
        assert (one.metadata["file_path"], one.metadata["file_name"]) == (str(clips[0]), "0.wav")
        assert "audio_digest" in one.excluded_llm_metadata_keys
        assert "audio_digest" not in one.get_content(metadata_mode=MetadataMode.LLM)
        assert one.id_ == AudioClip(str(clips[0])).id
        assert [document.id_ for document in reader.load_data()] == [document.id_ for document in documents]
        assert asyncio.run(reader.aload_data())[0].id_ == one.id_

    def test_alone(self, clips, monkeypatch):
        """A path in any form is made absolute, and is in the metadata."""
        monkeypatch.chdir(clips[0].parent)
        for form in ("0.wav", Path("0.wav"), str(clips[0])):
            (document,) = read(form)
            assert document.audio_resource.path == clips[0]
            assert document.metadata["file_path"] == str(clips[0])
            assert document.id_ == AudioClip(str(clips[0])).id

    def test_in_a_pipeline(self, clips):
        """As a reader of its own."""
        reader = ReaderConfig(reader=AudioReader(), reader_args=[str(clips[0])])
        nodes = IngestionPipeline(transformations=[AudioNodeParser()], readers=[reader]).run()
        assert [node.audio_resource.path for node in nodes] == [clips[0]]

    def test_what_is_refused(self, clips, tmp_path):
        """With what to do instead."""
        broken = tmp_path / "broken.wav"
        broken.write_text("not a recording")
        for wrong, message in (
            ("https://example.org/a.wav", "download"),
            (clips[0].read_bytes(), "write it to a file"),
            (broken, "broken.wav"),
            (tmp_path / "missing.wav", "missing.wav"),
        ):
            with pytest.raises(InputError, match=message):
                read(wrong)
        with pytest.raises(InputError, match="remote file systems"):
            AudioReader().load_data(clips[0], fs=object())
        with pytest.raises(TypeError, match="sampling_rate"):
            AudioReader().load_data(clips[0], sampling_rate=16_000)

    def test_a_broken_recording_raises_where_asked_to(self, clips):
        """LlamaIndex skips it else."""
        (clips[0].parent / "x.wav").write_text("not a recording")
        extractor = {".wav": AudioReader()}
        assert len(SimpleDirectoryReader(clips[0].parent, file_extractor=extractor).load_data()) == 10
        with pytest.raises(Exception, match="Error loading file"):
            SimpleDirectoryReader(clips[0].parent, file_extractor=extractor, raise_on_error=True).load_data()

    def test_a_document_is_stored_as_llama_indexs_own(self, clips):
        """And is picklable, for processes that parse."""
        (document,) = read(clips[0])
        docstore = SimpleDocumentStore()
        docstore.add_documents([document])
        assert type(docstore.get_document(document.id_)) is Document
        assert pickle.loads(pickle.dumps(document)).metadata == document.metadata

    def test_a_text_splitter_is_stopped(self, clips):
        """It would make a text of the metadata."""
        for splitter in (SentenceSplitter(), TokenTextSplitter()):
            with pytest.raises(InputError, match=r"0\.wav.*AudioNodeParser"):
                splitter(read(clips[0]))

    def test_splitters_that_read_no_metadata(self, clips):
        """Find nothing in a recording, as docs/llama-index.md says: this package is not asked."""
        for parser in (SentenceWindowNodeParser(), MarkdownNodeParser(), JSONNodeParser()):
            assert parser(read(clips[0])) == []


class TestParser:
    def test_whole(self, clips):
        """One node a recording, with its document as the source."""
        (document,) = read(clips[0])
        (node,) = AudioNodeParser()([document])
        assert type(node) is AudioNode
        assert (node.class_name(), node.audio_resource.path) == ("Node", clips[0])
        assert (node.ref_doc_id, node.source_node.hash) == (document.id_, document.hash)
        assert node.metadata == document.metadata | {"audio_reference": f"alm2vec:{AudioClip(clips[0]).reference()}"}
        assert node.text_resource.text == ""
        assert node.audio_resource.mimetype == "audio/x-wav"

    def test_segments(self, long):
        """As `segment` cuts, in order, linked, with times in the metadata."""
        nodes = AudioNodeParser(segment_seconds=2, hop_seconds=1.5)(read(long))
        assert [(node.metadata["start_seconds"], node.metadata["end_seconds"]) for node in nodes] == [
            (0.0, 2.0), (1.5, 3.5), (3.0, 5.0)
        ]  # fmt: skip
        assert nodes[0].next_node.node_id == nodes[1].node_id == nodes[2].prev_node.node_id
        assert {node.ref_doc_id for node in nodes} == {AudioClip(str(long)).id}
        assert "start_seconds: 1.5" in nodes[1].get_content(metadata_mode=MetadataMode.LLM)

    def test_ids_are_uuids_of_bytes_and_times(self, long):
        """The same in every run, others for other bytes, and others in another document."""

        def ids(**change):
            (document,) = read(long)
            nodes = AudioNodeParser(segment_seconds=2)([document.model_copy(update=change)])
            return [str(uuid.UUID(node.node_id)) for node in nodes]

        first = ids()
        assert len(set(first)) == 3
        assert ids() == first
        assert not set(ids(id_="another")) & set(first)
        sounds.write(long, sounds.noise(5.0, seed=7))
        assert not set(ids()) & set(first)

    def test_ids_by_a_function_of_ones_own(self, long):
        """LlamaIndex's field holds."""
        nodes = AudioNodeParser(segment_seconds=2, id_func=lambda i, document: f"{i} of {document.id_}")(read(long))
        assert nodes[2].node_id == f"2 of {AudioClip(str(long)).id}"

    def test_texts_are_split_in_their_place(self, clips):
        """By the splitter, and in the order of the documents."""
        text = Document(text="One sentence. " * 40)
        documents = [*read(clips[0]), text, *read(clips[1])]
        splitter = SentenceSplitter(chunk_size=40, chunk_overlap=0)
        nodes = AudioNodeParser(text_splitter=splitter)(documents)
        assert [type(node) for node in nodes] == [AudioNode, *[TextNode] * (len(nodes) - 2), AudioNode]
        assert len(nodes) == 2 + len(splitter([text]))
        assert {node.ref_doc_id for node in nodes[1:-1]} == {text.id_}
        assert asyncio.run(AudioNodeParser(text_splitter=splitter).acall(documents))[0].node_id == nodes[0].node_id

    def test_nodes_are_cut_further(self, long):
        """Their parts are parts of the same document."""
        (node,) = AudioNodeParser()(read(long))
        parts = AudioNodeParser(segment_seconds=3)([node])
        assert [part.metadata["start_seconds"] for part in parts] == [0.0, 3.0]
        assert {part.ref_doc_id for part in parts} == {AudioClip(str(long)).id}
        halves = AudioNodeParser(segment_seconds=1)(parts[1:])
        assert [part.metadata["start_seconds"] for part in halves] == [3.0, 4.0]

    def test_captions_go_along(self, clips):
        """For LLMs and keyword search."""
        (document,) = read(clips[0])
        document.set_content("a transcript")
        (node,) = AudioNodeParser()([document])
        assert node.get_content() == "a transcript"
        assert "a transcript" in node.get_content(metadata_mode=MetadataMode.LLM)
        assert node.get_content(metadata_mode=MetadataMode.EMBED).startswith("a transcript\naudio:/")

    def test_what_comes_from_a_store_needs_roots(self, clips):
        """Its path is what a store says."""
        stored = Document.from_dict(read(clips[0])[0].to_dict())
        assert type(stored) is Document
        with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
            AudioNodeParser()([stored])
        for parser in (AudioNodeParser, lambda **kw: AudioNodeParser(segment_seconds=0.3, min_seconds=0.1, **kw)):
            nodes = parser(allowed_audio_roots=clips[0].parent)([stored])
            assert nodes[0].metadata["audio_digest"] == file_digest(str(clips[0]))
        assert [node.metadata["start_seconds"] for node in nodes] == [0.0, 0.3]

    def test_what_is_refused(self, clips):
        """At once, or with the document's name."""
        for wrong, message in (
            ({"segment_seconds": 0}, "segment_seconds"),
            ({"segment_seconds": 2, "hop_seconds": 3}, "gaps"),
            ({"hop_seconds": 3}, "segment_seconds too"),
            ({"segment_secs": 3}, "segment_secs"),
            ({"allowed_audio_roots": [""]}, "allowed_audio_roots"),
        ):
            with pytest.raises(ValueError, match=message):
                AudioNodeParser(**wrong)
        for resource, message in (
            (MediaResource(data=clips[0].read_bytes()), "document 7.*write them to a file|node 7.*write them"),
            (MediaResource(url="https://example.org/a.wav"), "node 7.*download"),
            (MediaResource(text="x"), "node 7.*path"),
        ):
            with pytest.raises(InputError, match=message):
                AudioNodeParser()([Document(id_="7", audio_resource=resource)])

    def test_keywords_of_an_index_are_taken(self, clips):
        """`from_documents` passes all of its own on."""
        assert AudioNodeParser()(read(clips[0]), embed_model=None, show_progress=False)


class TestNode:
    def test_of_a_clip(self, clips):
        """With all that stores and caches need."""
        clip = AudioClip(clips[0], start_seconds=0.1, end_seconds=0.4)
        node = AudioNode.from_clip(clip, caption="a hum", metadata={"speaker": "x"})
        assert node.metadata == {
            "file_path": str(clips[0]), "speaker": "x", "start_seconds": 0.1, "end_seconds": 0.4,
            "audio_digest": file_digest(str(clips[0])), "audio_reference": f"alm2vec:{clip.reference()}",
        }  # fmt: skip
        assert node.node_id == AudioNode.from_clip(clip).node_id
        assert node.node_id != AudioNode.from_clip(clips[0]).node_id
        assert uuid.UUID(node.node_id)

    def test_of_a_dump(self, clips):
        """By pydantic's own means."""
        node = AudioNode.from_clip(clips[0], caption="a hum")
        assert AudioNode.model_validate(node.model_dump()) == node

    def test_by_its_fields(self, clips, monkeypatch):
        """The path is made absolute, the digest taken, and a caption put where none is."""
        monkeypatch.chdir(clips[0].parent)
        node = AudioNode(audio_resource=MediaResource(path="0.wav"))
        assert node.audio_resource.path == clips[0]
        reference = f"alm2vec:{AudioClip(clips[0]).reference()}"
        assert node.metadata == {"audio_digest": file_digest(str(clips[0])), "audio_reference": reference}
        assert node.text_resource.text == ""

    def test_what_is_refused(self, clips, tmp_path):
        """Whatever a store would lose."""
        with pytest.raises(InputError, match="needs audio"):
            AudioNode(text_resource=MediaResource(text="x"))
        with pytest.raises(InputError, match="write the recording to a file"):
            AudioNode.from_clip(AudioClip(clips[0].read_bytes()))
        with pytest.raises(AudioError, match="missing"):
            AudioNode(audio_resource=MediaResource(path=tmp_path / "missing.wav"))
        with pytest.raises(InputError, match="start_seconds"):
            AudioNode(audio_resource=MediaResource(path=clips[0]), metadata={"start_seconds": "soon"})
        with pytest.raises(ValidationError):
            AudioNode(audio_resource=3)
        for make in (
            AudioNode.from_clip,
            lambda path, **how: AudioNode(audio_resource=MediaResource(path=path), **how),
        ):
            with pytest.raises(ValidationError, match="captoin"):
                make(clips[0], captoin="x")

    def test_an_address_beside_the_path(self, clips):
        """Becomes metadata: it is no part of the audio, and none that contradicts it is taken."""
        url = "https://example.org/a.wav"
        resource = MediaResource(path=clips[0], url=url)
        node = AudioNode(audio_resource=resource)
        assert (node.metadata["audio_url"], node.audio_resource.url) == (url, None)
        assert (resource.url, node.metadata["audio_reference"]) == (
            AnyUrl(url),
            AudioNode.from_clip(clips[0]).metadata["audio_reference"],
        )
        for same in ("https://Example.org/a.wav", None):
            again = AudioNode(audio_resource=resource, metadata={"audio_url": same})
            assert again.metadata["audio_url"] == (same or url)
        for other in ("https://example.org/b.wav", "a key"):
            with pytest.raises(InputError, match=f"its metadata the audio_url '{other}'"):
                AudioNode(audio_resource=resource, metadata={"audio_url": other})
        (document,) = AudioReader().load_data(clips[0], extra_info={"audio_url": url})
        assert AudioNodeParser()([document])[0].metadata["audio_url"] == url
        with pytest.raises(InputError, match="URLs are not opened"):
            AudioNode(audio_resource=MediaResource(url=url))

    @pytest.mark.parametrize("key", ["start_seconds", "end_seconds", "audio_digest", "audio_reference"])
    def test_metadata_do_not_cut(self, clips, key):
        """What says which part of which recording it is, is not a caller's."""
        for make in (
            lambda: AudioReader().load_data(clips[0], extra_info={key: 0.1}),
            lambda: AudioNode.from_clip(clips[0], metadata={key: 0.1}),
        ):
            with pytest.raises(InputError, match=rf"0\.wav: metadata cannot hold \['{key}'\]"):
                make()

    @pytest.mark.parametrize("nested", [{"a": 1}, ["a"], AnyUrl("https://example.org")])
    def test_metadata_are_flat(self, clips, nested):
        """As some stores demand."""
        with pytest.raises(InputError, match=r"0\.wav: metadata must be strings and numbers.*\['x'\]"):
            AudioNode.from_clip(clips[0], metadata={"x": nested})

    @pytest.mark.parametrize("change", [{"start_seconds": 0.1}, {"audio_digest": "0" * 16}])
    def test_a_stored_node_that_was_changed(self, clips, change):
        """By hand, in its metadata, which name two recordings then."""
        stored = Node.from_dict(AudioNode.from_clip(clips[0]).to_dict())
        stored.metadata |= change
        with pytest.raises(InputError, match=f"node {stored.node_id}: its audio_reference is of another recording"):
            AudioNodeParser()([stored])
        whole = AudioNode.from_clip(clips[0])
        assert (
            AudioNode(**(dict(whole) | {"metadata": whole.metadata | {"end_seconds": 0.2}})).metadata["audio_reference"]
            == f"alm2vec:{AudioClip(clips[0], end_seconds=0.2).reference()}"
        )

    def test_it_comes_back_as_a_node(self, clips):
        """With hash, audio and links."""
        source = AudioNodeParser()(read(clips[0]))[0]
        docstore = SimpleDocumentStore()
        docstore.add_documents([source])
        back = docstore.get_document(source.node_id)
        assert type(back) is Node
        assert back.hash == source.hash
        assert back.ref_doc_id == source.relationships[NodeRelationship.SOURCE].node_id

    def test_an_llm_gets_the_recording(self, clips):
        """As a block of audio, and its metadata and caption as text."""
        text, caption, audio = AudioNode.from_clip(clips[0], caption="a hum").get_content_blocks(MetadataMode.LLM)
        assert (type(text), caption) == (TextBlock, TextBlock(text="a hum"))
        assert text.text == f"file_path: {clips[0]}"
        assert type(audio) is AudioBlock
        assert (audio.path, audio.format) == (clips[0], "wav")
