"""What comes from a store, a cache or a dump behind LlamaIndex: embedded as what it was, and trusted no further."""

import asyncio
import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import sounds
from llama_index.core import StorageContext, SummaryIndex, VectorStoreIndex
from llama_index.core.embeddings import MockMultiModalEmbedding
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, MediaResource, MetadataMode, Node, NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index_rag import Listener

from alm2vec_integrations import ALM2VecEncoder, AudioAccessError, AudioClip, CheckpointError, InputError, tiny
from alm2vec_integrations.llama_index import (
    AllowedAudio,
    ALM2VecEmbedding,
    ALM2VecRerank,
    AudioAsText,
    AudioNode,
    AudioNodeParser,
    AudioReader,
)


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        yield core


@pytest.fixture
def embedding(fake, clips):
    return ALM2VecEmbedding(model_name=fake, trust_remote_code=True, device="cpu", allowed_audio_roots=clips[0].parent)


def stored(node):
    """The node as a docstore brings it back."""
    docstore = SimpleDocumentStore()
    docstore.add_documents([node])
    return docstore.get_document(node.node_id)


class TestNodes:
    @pytest.fixture
    def nodes(self, clips):
        """Plain ones: whole, in part, with a caption and metadata, and in templates of their own."""
        clip = AudioClip(clips[1], start_seconds=0.1, end_seconds=0.4)
        made = [
            AudioNode.from_clip(clips[0]),
            AudioNode.from_clip(clip, caption="a\n\nhum", metadata={"by": "x\n\ny"}),
            AudioNode.from_clip(clip, id_="1", metadata_template="<{key}>{value}</{key}>", metadata_seperator=" "),
            AudioNode(audio_resource=MediaResource(path=clips[2]), text_template="{content} | {metadata_str}"),
        ]
        return [stored(node) for node in made]

    @pytest.fixture
    def vectors(self, core, clips):
        part = AudioClip(clips[1], start_seconds=0.1, end_seconds=0.4)
        return core.encode_document([AudioClip(clips[0]), part, part, AudioClip(clips[2])]).tolist()

    def test_are_embedded_by_their_sound(self, embedding, nodes, vectors):
        """By stock indexes and retrievers, which hand them over as texts; sync and async."""
        assert {type(node) for node in nodes} == {Node}
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        assert {type(text) for text in texts} == {str}
        assert embedding.get_text_embedding_batch(texts) == vectors
        assert asyncio.run(embedding.aget_text_embedding_batch(texts)) == vectors
        index = VectorStoreIndex(nodes, embed_model=embedding)
        assert list(index.vector_store.data.embedding_dict.values()) == vectors
        index = VectorStoreIndex([], embed_model=embedding)
        index.insert_nodes(nodes)
        assert list(index.vector_store.data.embedding_dict.values()) == vectors
        retriever = SummaryIndex(nodes).as_retriever(
            retriever_mode="embedding", embed_model=embedding, similarity_top_k=1
        )
        (hit,) = retriever.retrieve("a")
        query = embedding.get_query_embedding("a")
        scores = [sum(x * y for x, y in zip(query, vector, strict=True)) for vector in vectors]
        assert hit.score == pytest.approx(max(scores))

    @pytest.mark.parametrize(
        "text",
        [
            "The manual says {}",
            "{}",
            "audio_reference: alm2vec:audio:foo#t=9,1&v=0123456789abcdef",
            "hello alm2vec:audio:foo#v=0123456789abcdef",
        ],
    )
    def test_texts_about_references_are_texts(self, embedding, core, nodes, text):
        """Metadata name recordings; words do not, wherever they point."""
        text = text.format(nodes[0].metadata["audio_reference"])
        assert embedding.get_text_embedding(text) == core.encode_document(text).tolist()
        closed = embedding.model_copy(update={"allowed_audio_roots": None})
        assert closed.get_text_embedding(text) == core.encode_document(text).tolist()

    def test_texts_of_many_marks(self, embedding):
        """Are looked at in no more time than their length asks for."""
        from alm2vec_integrations.llama_index.item_text import carried_by_document

        text = "audio_reference: alm2vec:audio:" * 100_000
        assert carried_by_document(text) == (text, None)

    @pytest.mark.parametrize(
        "fields",
        [
            {"text_template": "{content}"},
            {"metadata_template": "{key}"},
            {"metadata_template": "{value}"},
            {"metadata": {"note": "audio_reference: alm2vec:audio:/x.wav#v=0123456789abcdef"}},
        ],
    )
    def test_what_would_lose_the_reference_is_refused(self, clips, fields):
        """Where the node is made, not when a store brings it back."""
        with pytest.raises(InputError, match=r"0\.wav: from a store it would be embedded as another recording"):
            AudioNode.from_clip(clips[0], **fields)

    def test_as_queries_they_are_texts(self, embedding, core, nodes):
        """What an agent writes opens no file."""
        text = nodes[0].get_content(metadata_mode=MetadataMode.EMBED)
        assert embedding.get_query_embedding(text) == core.encode_query(text).tolist()

    def test_inside_the_roots_alone(self, embedding, nodes, clips):
        """And unchanged."""
        (text,) = (node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes[:1])
        with pytest.raises(AudioAccessError, match=r"0\.wav.*allowed_audio_roots"):
            embedding.model_copy(update={"allowed_audio_roots": None}).get_text_embedding(text)
        sounds.write(clips[0], sounds.noise(0.5, seed=99))
        with pytest.raises(AudioAccessError, match="have changed"):
            embedding.get_text_embedding(text)

    @pytest.mark.parametrize("made", [AudioNode.from_clip, lambda p: AudioNode(audio_resource=MediaResource(path=p))])
    def test_from_the_ingestion_cache(self, embedding, core, clips, made):
        """With and without vectors, on the second run, they are in the index."""
        expected = [core.encode_document(AudioClip(path)).tolist() for path in clips[:2]]
        for transformations in ([embedding], [AudioNodeParser(allowed_audio_roots=clips[0].parent)]):
            pipeline = IngestionPipeline(transformations=transformations)
            for _ in range(2):
                nodes = pipeline.run(nodes=[made(path) for path in clips[:2]])
                index = VectorStoreIndex(nodes, embed_model=embedding)
                assert list(index.vector_store.data.embedding_dict.values()) == expected
            assert {type(node) for node in nodes} == {Node}

    def test_an_llm_is_not_shown_the_reference(self, nodes):
        """It is for the embedding."""
        assert "alm2vec:" not in nodes[0].get_content(metadata_mode=MetadataMode.LLM)

    def test_an_index_for_images_takes_none(self, embedding, nodes, clips):
        """Of LlamaIndex's own doing, as docs/llama-index.md says: it looks at texts and images, and asks nobody."""
        index = MultiModalVectorStoreIndex(
            [AudioNode.from_clip(clips[0]), *nodes, TextNode(text="a")],
            embed_model=embedding,
            image_embed_model=MockMultiModalEmbedding(embed_dim=3),
        )
        assert len(index.vector_store.data.embedding_dict) == 1

    def test_as_texts(self, embedding, core, clips):
        """For such an index they are texts that name their recordings, from a store and to one, and to a reranker."""
        clip = AudioClip(clips[1], start_seconds=0.1, end_seconds=0.4)
        nodes = [
            AudioNode.from_clip(clips[0]),
            AudioNode.from_clip(clip, caption="a hum", metadata_template="<{key}>{value}</{key}>"),
        ]
        texts = AudioAsText()(nodes)
        assert {type(text) for text in texts} == {TextNode}
        assert [text.text for text in texts] == [str(clips[0]), "a hum"]
        expected = [core.encode_document(part).tolist() for part in (AudioClip(clips[0]), clip)]
        for found in (texts, [stored(text) for text in texts], AudioAsText()([stored(node) for node in nodes])):
            assert [text.embedding for text in embedding(found)] == expected
            assert [text.node_id for text in found] == [node.node_id for node in nodes]
            assert "alm2vec:" not in found[0].get_content(metadata_mode=MetadataMode.LLM)
        reranker = ALM2VecRerank(embed_model=embedding)
        by_node, by_text = (
            reranker.postprocess_nodes([NodeWithScore(node=one) for one in some], query_str="a hum")
            for some in (nodes, texts)
        )
        assert [hit.score for hit in by_node] == [hit.score for hit in by_text]
        others = [TextNode(text="a")]
        assert AudioAsText().from_dict(AudioAsText().to_dict())(others) == others

    def test_as_texts_in_a_pipeline(self, embedding, core, clips):
        """After the parser, also where the cache has the nodes."""
        transformations = [AudioNodeParser(), AudioAsText()]
        pipeline = IngestionPipeline(transformations=[*transformations, embedding])
        for _ in range(2):
            (node,) = pipeline.run(documents=AudioReader().load_data(clips[0]))
            assert (type(node), node.embedding) == (TextNode, core.encode_document(AudioClip(clips[0])).tolist())
        index = MultiModalVectorStoreIndex.from_documents(
            AudioReader().load_data(clips[0]),
            transformations=transformations,
            embed_model=embedding,
            image_embed_model=MockMultiModalEmbedding(embed_dim=3),
        )
        assert list(index.vector_store.data.embedding_dict.values()) == [node.embedding]

    def test_as_texts_beside_nodes(self, embedding, clips):
        """One cache tells the two apart, and a document is neither."""
        cache, (document,) = IngestionCache(), AudioReader().load_data(clips[0])
        with pytest.raises(InputError, match=r"AudioNodeParser\(\) first"):
            AudioAsText()([document])
        document.set_content("a caption")
        for transformations, kind in (([], Node), ([AudioAsText()], TextNode)):
            pipeline = IngestionPipeline(transformations=[AudioNodeParser(), *transformations, embedding], cache=cache)
            for _ in range(2):
                assert isinstance(pipeline.run(documents=[document])[0], kind)

    def test_a_text_with_the_metadata_of_a_document(self, embedding, core, clips):
        """Is the text it says, as a transcript beside its recording."""
        (document,) = AudioReader().load_data(clips[0])
        text = Document(text="a transcript", metadata=dict(document.metadata))
        nodes = IngestionPipeline(transformations=[AudioNodeParser(), embedding]).run(documents=[document, text])
        words = nodes[1].get_content(metadata_mode=MetadataMode.EMBED)
        assert nodes[0].embedding == core.encode_document(AudioClip(clips[0])).tolist()
        np.testing.assert_allclose(nodes[1].embedding, core.encode_document(words), atol=1e-5)

    @pytest.mark.parametrize("change", ["metadata", "excluded_embed_metadata_keys"])
    def test_what_no_longer_names_its_recording(self, embedding, clips, change):
        """Is no text of it, nor, without a digest, a node that a cache would know."""
        node = AudioNode.from_clip(clips[0])
        setattr(node, change, {"only": "mine"} if change == "metadata" else ["audio_reference"])
        with pytest.raises(InputError, match=rf"node {node.node_id}: its metadata do not name .*0\.wav"):
            AudioAsText()([node])
        if change == "metadata":
            with pytest.raises(InputError, match=r"tells .*0\.wav from other recordings"):
                embedding([node])

    def test_an_error_names_its_item_and_no_place(self, embedding, clips):
        """LlamaIndex makes batches: a place would be one in a batch."""
        embedding.embed_batch_size = 16
        clips[3].write_bytes(b"no recording")
        audio = [clips[0]] * 33 + [clips[3]]
        with pytest.raises(InputError) as caught:
            embedding.get_audio_embedding_batch(audio)
        assert caught.value.index is None
        assert str(caught.value).startswith(f"{clips[3]}: ")
        for texts in (["a"] * 20 + [" "], ["a"] * 20 + ["\ud800"]):
            with pytest.raises(InputError, match=r"empty|half a character") as caught:
                asyncio.run(embedding.aget_text_embedding_batch(texts))
            assert (caught.value.index, caught.value.source) == (None, repr(texts[-1]))


class TestWhatAnLLMHears:
    @pytest.fixture
    def engine(self, clips):
        def make(node, *postprocessors):
            embedding = ALM2VecEmbedding(model_name=tiny.NAME, device="cpu", allowed_audio_roots=clips[0].parent)
            node.embedding = embedding.get_query_embedding("x")
            llm = Listener()
            engine = VectorStoreIndex([node], embed_model=embedding).as_query_engine(
                llm=llm, multimodal=True, node_postprocessors=[make(embedding) for make in postprocessors]
            )
            return engine, llm

        return make

    @pytest.fixture(params=["AllowedAudio", "ALM2VecRerank"])
    def guard(self, request, clips):
        if request.param == "AllowedAudio":
            return lambda embedding: AllowedAudio(allowed_audio_roots=embedding.allowed_audio_roots)
        return lambda embedding: ALM2VecRerank(embed_model=embedding)

    def test_it_lies_inside_the_roots(self, engine, guard, clips, tmp_path):
        """And is what was indexed; LlamaIndex alone sends any file."""
        inside = AudioNode.from_clip(clips[0])
        outside = Node(text_resource=MediaResource(text="a"), audio_resource=MediaResource(path=tmp_path / "a.wav"))
        (tmp_path / "a.wav").write_bytes(clips[1].read_bytes())
        asked, llm = engine(stored(inside), guard)
        asked.query("a")
        assert len(llm.heard) == 1
        for node, message in ((outside, "outside allowed_audio_roots"), (inside, "have changed")):
            if node is inside:
                sounds.write(clips[0], sounds.noise(0.5, seed=99))
            asked, llm = engine(stored(node))
            asked.query("a")
            assert len(llm.heard) == 1
            asked, llm = engine(stored(node), guard)
            with pytest.raises(AudioAccessError, match=message):
                asked.query("a")
            with pytest.raises(AudioAccessError, match=message):
                asyncio.run(asked.aquery("a"))
            assert llm.heard == []

    def test_addresses_and_texts(self, clips):
        """An address is refused, which an LLM would fetch; what holds no audio passes."""
        guard = AllowedAudio(allowed_audio_roots=[clips[0].parent])
        node = Node(id_="7", audio_resource=MediaResource(url="http://localhost/"))
        with pytest.raises(InputError, match="node 7: URLs"):
            guard.postprocess_nodes([NodeWithScore(node=node)])
        nodes = [NodeWithScore(node=TextNode(text="a"))]
        assert guard.postprocess_nodes(nodes) == nodes

    def test_its_roots_are_no_part_of_a_dump(self, clips):
        """Nor are the parser's."""
        for made in (AllowedAudio(allowed_audio_roots=clips[0].parent), AudioNodeParser(allowed_audio_roots="/")):
            dumped = json.loads(made.to_json())
            with pytest.raises(InputError, match="allowed_audio_roots"):
                type(made).from_dict(dumped | {"allowed_audio_roots": ["/"]})
            again = type(made).from_dict(dumped, allowed_audio_roots=["/"])
            assert again.allowed_audio_roots == ["/"]
        with pytest.raises(InputError, match="allowed_audio_roots"):
            AllowedAudio(allowed_audio_roots=[""])

    def test_a_parser_comes_back_from_its_dump(self, clips):
        """With what it holds, or a request for what a dump can only name."""
        parser = AudioNodeParser(segment_seconds=2, hop_seconds=1, include_metadata=False)
        again = AudioNodeParser.from_dict(parser.to_dict())
        assert again.to_dict() == parser.to_dict()
        (document,) = AudioReader().load_data(clips[0])
        assert again([document]) == parser([document])
        for own in ({"id_func": lambda index, _: f"{index}"}, {"text_splitter": SentenceSplitter(chunk_overlap=100)}):
            dumped = AudioNodeParser(**own).to_dict()
            with pytest.raises(InputError, match=f"only names its {next(iter(own))}: pass it to from_dict"):
                AudioNodeParser.from_dict(dumped)
            assert AudioNodeParser.from_dict(dumped, **own).to_dict() == dumped


class TestDumps:
    @pytest.fixture
    def hub(self, tmp_path):
        """A cache with the published checkpoint, and what somebody proposed to change in it."""
        repository = tmp_path / "hub" / "models--cara-ai--ALM2Vec-FT"
        for commit in ("a" * 40, "b" * 40):
            shutil.copytree(tiny.FOLDER, repository / "snapshots" / commit)
        code = repository / "snapshots" / ("b" * 40) / "modeling_alm2vec_tiny.py"
        code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + code.read_text())
        (repository / "refs" / "refs" / "pr").mkdir(parents=True)
        (repository / "refs" / "main").write_text("a" * 40)
        (repository / "refs" / "refs" / "pr" / "1").write_text("b" * 40)
        return tmp_path / "hub"

    READ = (
        lambda data, **how: ALM2VecEmbedding.from_dict(data, **how),
        lambda data, **how: ALM2VecEmbedding.from_json(json.dumps(data), **how),
        lambda data, **how: copy.deepcopy(ALM2VecEmbedding.from_dict(data, **how)),
        lambda data, **how: pickle.loads(pickle.dumps(ALM2VecEmbedding.from_dict(data, **how))),
        lambda data, **how: ALM2VecEmbedding.from_dict(data, **how).with_instructions(query="q"),
    )

    @pytest.mark.parametrize("read", READ)
    def test_a_revision_that_was_only_proposed(self, hub, tmp_path, read, monkeypatch):
        """Is not run, by whatever way; the main branch's is, and so is one that Python code trusts."""
        data = {"model_name": "cara-ai/ALM2Vec-FT", "class_name": "ALM2VecEmbedding"}
        reach = {"cache_dir": hub, "local_files_only": True, "device": "cpu"}
        assert len(read(data, **reach).get_query_embedding("a")) == 160
        assert len(read(data | {"revision": "a" * 40}, **reach).get_query_embedding("a")) == 160
        for revision in ("refs/pr/1", "b" * 40):
            embedding = read(data | {"revision": revision}, **reach)
            nodes = [NodeWithScore(node=TextNode(text="a"))]
            for use in (
                lambda: embedding.get_query_embedding("a"),  # noqa: B023 - used at once
                lambda: asyncio.run(embedding.aget_text_embedding_batch(["a"])),  # noqa: B023
                lambda: ALM2VecRerank(embed_model=embedding).postprocess_nodes(nodes, query_str="a"),  # noqa: B023
                lambda: asyncio.run(
                    ALM2VecRerank(embed_model=embedding).apostprocess_nodes(nodes, query_str="a")  # noqa: B023
                ),
            ):
                with pytest.raises(CheckpointError, match="on the main branch"):
                    use()
        assert not (tmp_path / "ran").exists()
        trusted = read(data | {"revision": "b" * 40}, trust_remote_code=True, **reach)
        assert len(trusted.get_query_embedding("a")) == 160
        assert (tmp_path / "ran").exists()

    def test_a_checkpoint_that_is_not_known(self, fake):
        """Needs trust from Python, or from the environment; copies of what Python made keep theirs."""
        made = ALM2VecEmbedding(model_name=fake, trust_remote_code=True, device="cpu")
        expected = made.get_query_embedding("a")
        for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.model_copy()):
            assert twin.get_query_embedding("a") == expected
        for read in self.READ:
            with pytest.raises(CheckpointError, match=f"set ALM2VEC_TRUSTED_REPOS={fake}"):
                read(made.to_dict()).get_query_embedding("a")

    @pytest.mark.parametrize("kwargs", [{"subfolder": "x"}, {"attn_implementation": "owner/kernels"}, {"token": "x"}])
    def test_keywords_for_transformers(self, fake, kwargs):
        """Are those that are neither code nor weights from elsewhere."""
        data = {"model_name": str(fake), "model_kwargs": kwargs}
        for read in (ALM2VecEmbedding.from_dict, ALM2VecEmbedding.model_validate):
            with pytest.raises(InputError, match=rf"\['{next(iter(kwargs))}'\] of model_kwargs"):
                read(data)

    def test_a_reranker_comes_back_with_its_embedding(self, embedding, fake):
        """Which is of a dump, too."""
        dumped = ALM2VecRerank(embed_model=embedding.with_instructions(query="q"), top_n=3).to_dict()
        again = ALM2VecRerank.from_dict(json.loads(json.dumps(dumped)))
        assert again.to_dict() == dumped
        with pytest.raises(CheckpointError, match="ALM2VEC_TRUSTED_REPOS"):
            again.postprocess_nodes([NodeWithScore(node=TextNode(text="a"))], query_str="a")


class TestAnEncoderOfOnesOwn:
    def test_is_told_from_others_by_caches(self, fake, core):
        """Also when an instruction of it is assigned."""
        cache = IngestionCache()
        other = ALM2VecEncoder(fake, trust_remote_code=True, device="cpu", document_instruction="i")
        vectors = []
        for encoder in (core, other, other, core):
            if len(vectors) == 3:
                core.document_instruction = "j"
            embedding = ALM2VecEmbedding(model_name="x", encoder=encoder)
            (node,) = IngestionPipeline(transformations=[embedding], cache=cache).run(nodes=[TextNode(text="a")])
            vectors.append(node.embedding)
            assert node.embedding == encoder.encode_document("a").tolist()
        assert len({tuple(vector) for vector in vectors}) == 3
        before = embedding.to_dict()
        assert copy.copy(embedding).to_dict() == before
        core.document_instruction = None
        assert embedding.to_dict() != before

    def test_does_not_come_back_from_a_dump(self, core):
        """And a dump says so, as does one of a reranker."""
        embedding = ALM2VecEmbedding(model_name="x", encoder=core)
        dumped = json.loads(embedding.to_json())
        with pytest.raises(InputError, match=r"\['encoder'\]: pass them to from_dict"):
            ALM2VecEmbedding.from_dict(dumped)
        again = ALM2VecEmbedding.from_dict(dumped, encoder=core)
        assert again.get_query_embedding("a") == core.encode_query("a").tolist()
        with pytest.raises(ValueError, match="encoder"):
            ALM2VecRerank.from_dict(ALM2VecRerank(embed_model=embedding).to_dict())


def test_a_stored_index_is_read_with_roots(embedding, clips, tmp_path):
    """Documents of a docstore are cut again under the parser's roots."""
    context = StorageContext.from_defaults()
    (document,) = AudioReader().load_data(clips[0])
    context.docstore.add_documents([document])
    back = context.docstore.get_document(document.id_)
    with pytest.raises(AudioAccessError):
        AudioNodeParser(allowed_audio_roots=tmp_path / "other")([back])
    assert embedding(AudioNodeParser(allowed_audio_roots=clips[0].parent)([back]))
