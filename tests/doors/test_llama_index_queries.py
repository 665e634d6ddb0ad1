"""Queries of words, recordings and both through LlamaIndex's own retrievers and query engines; reranking."""

import asyncio
import copy
import dataclasses
import json
import pickle
from pathlib import Path

import fake_checkpoints
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import TextBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation.events.retrieval import RetrievalStartEvent
from llama_index.core.schema import MediaResource, Node, NodeWithScore, QueryBundle, TextNode
from llama_index_rag import Listener

from alm2vec_integrations import ALM2VecEncoder, AudioAccessError, AudioClip, AudioText, InputError
from alm2vec_integrations.llama_index import ALM2VecEmbedding, ALM2VecRerank, AudioNode, AudioQueryBundle


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        fake_checkpoints.loaded(core)
        yield core


@pytest.fixture
def embedding(fake, clips):
    return ALM2VecEmbedding(model_name=fake, trust_remote_code=True, device="cpu", allowed_audio_roots=clips[0].parent)


@pytest.fixture
def index(embedding, clips):
    return VectorStoreIndex([AudioNode.from_clip(path) for path in clips[:3]], embed_model=embedding)


class TestBundle:
    @pytest.mark.parametrize(
        ("bundle", "item", "instruction"),
        [
            (lambda clip: AudioQueryBundle("a dog"), lambda clip: "a dog", None),
            (lambda clip: AudioQueryBundle("a dog", instruction="i"), lambda clip: "a dog", "i"),
            (lambda clip: AudioQueryBundle(audio=clip), AudioClip, None),
            (lambda clip: AudioQueryBundle("who?", audio=clip), lambda clip: AudioText("who?", AudioClip(clip)), None),
            (lambda clip: AudioQueryBundle("who?", audio=AudioClip(clip, start_seconds=0.2), instruction="i"),
             lambda clip: AudioText("who?", AudioClip(clip, start_seconds=0.2)), "i"),
            (lambda clip: AudioQueryBundle("who?", audio=clip, instruction=""),
             lambda clip: AudioText("who?", AudioClip(clip)), None),
        ],
    )  # fmt: skip
    def test_its_vector_is_the_cores(self, index, core, clips, bundle, item, instruction):
        """Bit for bit, by sync and async retrievers, which find the same."""
        made, expected = bundle(clips[0]), core.encode_query(item(clips[0]), instruction=instruction).tolist()
        hits = index.as_retriever().retrieve(made)
        assert list(made.embedding) == expected
        again = asyncio.run(index.as_retriever().aretrieve(bundle(clips[0])))
        assert [(hit.node_id, hit.score) for hit in hits] == [(hit.node_id, hit.score) for hit in again]

    def test_a_recording_given_here_needs_no_roots(self, index, tmp_path, clips):
        """Python code passes it."""
        (tmp_path / "query.wav").write_bytes(clips[0].read_bytes())
        assert index.as_retriever().retrieve(AudioQueryBundle(audio=tmp_path / "query.wav"))

    def test_words_are_never_a_path(self, index, core, clips):
        """However they look."""
        for words in (str(clips[0]), AudioClip(clips[0]).reference()):
            index.as_retriever().retrieve(bundle := AudioQueryBundle(words))
            assert list(bundle.embedding) == core.encode_query(words).tolist()

    def test_what_was_retrieved_is_of_the_query_as_it_was(self, index, core, clips):
        """Changed in place or copied with a change, the query is embedded anew."""
        bundle = AudioQueryBundle("who?", audio=clips[0])
        index.as_retriever().retrieve(bundle)
        for change, item, instruction in (
            ({"query_str": "what?"}, AudioText("what?", AudioClip(clips[0])), None),
            ({"instruction": "i"}, AudioText("who?", AudioClip(clips[0])), "i"),
            ({"audio": str(clips[1])}, AudioText("who?", AudioClip(clips[1])), None),
        ):
            expected = core.encode_query(item, instruction=instruction).tolist()
            for changed in (dataclasses.replace(bundle, **change), copy.copy(bundle)):
                for name, value in change.items():
                    setattr(changed, name, value)
                assert changed.embedding is None
                index.as_retriever().retrieve(changed)
                assert list(changed.embedding) == expected

    def test_several_strings(self, index, core):
        """LlamaIndex's own: embedded in place of the words, and averaged."""
        bundle = AudioQueryBundle("a", custom_embedding_strs=["b", "c"], instruction="i")
        index.as_retriever().retrieve(bundle)
        expected = core.encode_query(["b", "c"], instruction="i").astype("float64").mean(axis=0).tolist()
        assert list(bundle.embedding) == expected

    def test_what_is_refused(self, clips):
        """Whatever would be ignored."""
        for wrong, message in (
            ({}, "empty"),
            ({"query_str": "  "}, "empty"),
            ({"query_str": 3}, "query_str"),
            ({"audio": "https://example.org/a.wav"}, "download"),
            ({"audio": 3}, "AudioClip takes"),
            ({"query_str": "a", "instruction": 3}, "instruction"),
            ({"query_str": "a", "image_path": "x.png"}, "image"),
            ({"audio": clips[0], "embedding": [1.0]}, "moot"),
            ({"query_str": "a", "instruction": "i", "embedding": [1.0]}, "moot"),
            ({"audio": clips[0], "custom_embedding_strs": ["a"]}, "moot"),
        ):
            with pytest.raises(InputError, match=message):
                AudioQueryBundle(**wrong)

    def test_what_it_has_embedded_survives_copies(self, embedding, core, clips):
        """Texts that carry items are copied and pickled with them, as between processes."""
        (text,) = AudioQueryBundle("who?", audio=clips[0], instruction="i").embedding_strs
        expected = core.encode_query(AudioText("who?", AudioClip(clips[0])), instruction="i").tolist()
        for twin in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
            assert twin == text
            assert embedding.get_query_embedding(twin) == expected
        assert embedding.get_query_embedding(str(text)) == core.encode_query(str(text)).tolist() != expected

    def test_instrumentation_can_write_it_down(self, index, clips):
        """As JSON."""
        start = RetrievalStartEvent(str_or_query_bundle=AudioQueryBundle("who?", audio=clips[0]))
        assert json.loads(start.model_dump_json())["str_or_query_bundle"]["query_str"] == "who?"
        assert json.loads(AudioQueryBundle(audio=clips[0]).to_json())["audio"]["source"] == str(clips[0])

    def test_from_json(self, clips):
        """Words come back; which file is opened is no stored text's affair."""
        words = AudioQueryBundle("a dog", instruction="x")
        assert AudioQueryBundle.from_json(words.to_json()) == words
        words.embedding = [1.0]  # as a retriever does
        assert AudioQueryBundle.from_json(words.to_json()) == AudioQueryBundle("a dog", instruction="x")
        with pytest.raises(InputError, match="cannot decide which file is opened"):
            AudioQueryBundle.from_json(AudioQueryBundle(audio=clips[0]).to_json())

    def test_callbacks_hold_it(self, index, clips):
        """As retrieval's callbacks do."""
        debug = LlamaDebugHandler(print_trace_on_end=False)
        retriever = index.as_retriever()
        retriever.callback_manager = CallbackManager([debug])
        retriever.retrieve(AudioQueryBundle("who?", audio=clips[0]))
        (pair,) = debug.get_event_pairs(CBEventType.RETRIEVE)
        assert pair[0].payload == {EventPayload.QUERY_STR: "who?"}


class TestRerank:
    @pytest.fixture
    def hits(self, clips):
        """As stores bring them back: plain nodes; and a text."""
        nodes = [AudioNode.from_clip(path) for path in clips[:3]]
        return [
            *(NodeWithScore(node=Node.from_dict(node.to_dict()), score=0.5) for node in nodes),
            NodeWithScore(node=TextNode(text="an answer"), score=0.1),
        ]

    def both(self, rerank, hits, **query):
        """The same by sync and async."""
        found = rerank.postprocess_nodes(hits, **query)
        again = asyncio.run(rerank.apostprocess_nodes(hits, **query))
        assert [(hit.node_id, hit.score) for hit in found] == [(hit.node_id, hit.score) for hit in again]
        return found

    @pytest.mark.parametrize("fields", [{}, {"query_instruction": "q", "text_instruction": "t"}])
    @pytest.mark.parametrize("instruction", [None, "i"])
    @pytest.mark.parametrize("question", ["who?", None])
    def test_it_is_the_cores_ranking(self, fake, embedding, hits, clips, fields, instruction, question):
        """With the embedding's instructions, and the bundle's before them."""
        core = ALM2VecEncoder(
            fake, trust_remote_code=True, device="cpu",
            query_instruction=fields.get("query_instruction"), document_instruction=fields.get("text_instruction"),
        )  # fmt: skip
        candidates = [*map(AudioClip, clips[:3]), "an answer"]
        clip = AudioClip(clips[4])
        expected = core.rerank(AudioText(question, clip) if question else clip, candidates, instruction=instruction)
        rerank = ALM2VecRerank(embed_model=embedding.model_copy(update=fields), top_n=4)
        bundle = AudioQueryBundle(question or "", audio=clip, instruction=instruction)
        found = self.both(rerank, hits, query_bundle=bundle)
        assert [hit.node_id for hit in found] == [hits[one.index].node_id for one in expected]
        assert [hit.score for hit in found] == [one.score for one in expected]
        assert [hit.score for hit in hits] == [0.5, 0.5, 0.5, 0.1]

    def test_words_under_a_question(self, embedding, core, hits, clips):
        """The reranker's, or else that of the index; and its own instruction."""
        candidates = [*map(AudioClip, clips[:3]), "an answer"]
        expected = core.rerank("a man", candidates, question="who?", instruction="i", top_n=2)
        for rerank in (
            ALM2VecRerank(embed_model=embedding, question="who?", instruction="i"),
            ALM2VecRerank(
                embed_model=embedding.model_copy(update={"document_question": "who?", "query_instruction": "i"})
            ),
        ):
            found = self.both(rerank, hits, query_str="a man")
            assert [(hit.node_id, hit.score) for hit in found] == [(hits[o.index].node_id, o.score) for o in expected]

    def test_a_recording_alone_under_the_indexs_question(self, embedding, core, hits, clips):
        """As an index under a question is searched."""
        expected = core.rerank(AudioText("who?", AudioClip(clips[4])), [*map(AudioClip, clips[:3]), "an answer"])
        rerank = ALM2VecRerank(embed_model=embedding.model_copy(update={"document_question": "who?"}), top_n=4)
        found = self.both(rerank, hits, query_bundle=AudioQueryBundle(audio=clips[4]))
        assert [(hit.node_id, hit.score) for hit in found] == [(hits[o.index].node_id, o.score) for o in expected]

    def test_a_query_that_is_not_its_words(self, embedding, hits, clips):
        """Is refused; one that a retriever has embedded is not."""
        vectors = [
            embedding.get_audio_query_embedding(clips[0], "who?"),
            asyncio.run(embedding.aget_audio_query_embedding(clips[0])),
        ]
        rerank = ALM2VecRerank(embed_model=embedding)
        for bundle, message in (
            *((QueryBundle("x", embedding=vector), r"AudioQueryBundle\(question, audio=…\)") for vector in vectors),
            (AudioQueryBundle("x", embedding=[1.0]), r"AudioQueryBundle\(question, audio=…\)"),
            (QueryBundle("x", custom_embedding_strs=["y"]), "custom_embedding_strs"),
            (AudioQueryBundle("x", custom_embedding_strs=["y"]), "custom_embedding_strs"),
            (QueryBundle("x", image_path="x.png"), "image_path"),
        ):
            with pytest.raises(InputError, match=message):
                rerank.postprocess_nodes(hits, query_bundle=bundle)
            with pytest.raises(InputError, match=message):
                asyncio.run(rerank.apostprocess_nodes(hits, query_bundle=bundle))
        index = VectorStoreIndex([AudioNode.from_clip(clips[0])], embed_model=embedding)
        for bundle in (QueryBundle("x"), AudioQueryBundle("x"), AudioQueryBundle("x", audio=clips[0])):
            index.as_retriever().retrieve(bundle)
            assert bundle.embedding is not None
            assert rerank.postprocess_nodes(hits, query_bundle=bundle)

    def test_in_llama_indexs_shape(self, embedding, hits):
        """No nodes, no query, wrong fields; and the event."""
        debug = LlamaDebugHandler(print_trace_on_end=False)
        rerank = ALM2VecRerank(embed_model=embedding, top_n=2, callback_manager=CallbackManager([debug]))
        assert rerank.postprocess_nodes([], query_str="a") == []
        assert rerank.class_name() == "ALM2VecRerank"
        with pytest.raises(InputError, match="query is missing"):
            rerank.postprocess_nodes(hits)
        for wrong in ({"top_n": 0}, {"top": 3}):
            with pytest.raises(ValueError, match="top"):
                ALM2VecRerank(embed_model=embedding, **wrong)
        debug.flush_event_logs()
        found = rerank.postprocess_nodes(hits, query_str="a")
        (pair,) = debug.get_event_pairs(CBEventType.RERANKING)
        assert pair[0].payload[EventPayload.TOP_K] == 2
        assert pair[0].payload[EventPayload.QUERY_STR] == "a"
        assert pair[1].payload == {EventPayload.NODES: found}

    def test_roots_and_errors(self, embedding, hits, tmp_path, clips):
        """A node outside the roots is named by its place."""
        elsewhere = tmp_path / "elsewhere.wav"
        elsewhere.write_bytes(clips[0].read_bytes())
        outside = NodeWithScore(node=Node(audio_resource=MediaResource(path=elsewhere)))
        with pytest.raises(AudioAccessError, match=r"^item 4, .*elsewhere\.wav.*outside"):
            ALM2VecRerank(embed_model=embedding).postprocess_nodes([*hits, outside], query_str="a")


class TestQueryEngines:
    @pytest.fixture
    def library_index(self, tiny, library):
        embedding = ALM2VecEmbedding(model_name="alm2vec-tiny", device="cpu", allowed_audio_roots=library[0].parent)
        nodes = [AudioNode.from_clip(path, caption=f"caption of {path.stem}") for path in library[1:]]
        return VectorStoreIndex(nodes, embed_model=embedding)

    def engine(self, index, llm, **how):
        return index.as_query_engine(llm=llm, similarity_top_k=6, **how)

    def test_an_llm_hears_what_was_found(self, library_index, library):
        """As blocks of audio, best first, sync and async; another question, another recording."""
        rerank = ALM2VecRerank(embed_model=library_index._embed_model, top_n=1)
        for question, right in (("Describe the background noise of this audio?", 2), ("What is the main sound?", 1)):
            llm = Listener()
            engine = self.engine(library_index, llm, multimodal=True, node_postprocessors=[rerank])
            answer = engine.query(AudioQueryBundle(question, audio=library[0]))
            assert str(answer) == f"1 recordings heard: ['{library[right].stem}']"
            asyncio.run(engine.aquery(AudioQueryBundle(question, audio=library[0])))
            heard = [(block.format, block.resolve_audio().read()) for block in llm.heard]
            assert heard == [("flac", library[right].read_bytes())] * 2

    def test_an_llm_without_ears_reads_captions(self, library_index, library, monkeypatch):
        """Captions and metadata, no blocks."""
        prompts = []
        answer = Listener.chat

        def chat(self, messages, **kwargs):
            prompts.extend(messages)
            return answer(self, messages, **kwargs)

        monkeypatch.setattr(Listener, "chat", chat)
        llm = Listener()
        self.engine(library_index, llm).query("a church bell in the wind")
        assert llm.heard == []
        blocks = [block for message in prompts for block in message.blocks]
        assert all(isinstance(block, TextBlock) for block in blocks)
        text = "".join(block.text for block in blocks)
        assert "caption of church bell over wind" in text
        assert f"file_path: {library[-1]}" in text

    def test_a_retrievers_own_instructions(self, library_index, library):
        """By the engine's embedding, on the index as it is."""
        embedding = library_index._embed_model
        for instruction, right in (
            ("Represent the audio by the background noise.", 2),
            ("Represent the main sound.", 1),
        ):
            engine = self.engine(
                library_index, Listener(), embed_model=embedding.with_instructions(query=instruction), multimodal=True
            )
            nodes = engine.query(AudioQueryBundle(audio=library[0])).source_nodes
            assert Path(nodes[0].metadata["file_path"]) == library[right]

    def test_llama_indexs_own_bundle(self, library_index, library):
        """With a vector of one's own."""
        vector = library_index._embed_model.get_audio_query_embedding(library[0], "What is the main sound?")
        hits = library_index.as_retriever().retrieve(QueryBundle("x", embedding=vector))
        assert Path(hits[0].metadata["file_path"]) == library[1]
