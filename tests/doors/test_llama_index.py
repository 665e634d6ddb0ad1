"""ALM2Vec behind LlamaIndex's `BaseEmbedding`."""

import asyncio
import copy
import json
import pickle
import threading
import time

import fake_checkpoints
import numpy as np
import pytest
import sounds
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.rate_limiter import BaseRateLimiter, TokenBucketRateLimiter
from llama_index.core.schema import Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import SecretStr, ValidationError

from alm2vec_integrations import (
    DOC_INSTRUCTION,
    QUERY_INSTRUCTION,
    ALM2VecEncoder,
    AudioAccessError,
    AudioClip,
    AudioText,
    InputError,
)
from alm2vec_integrations.llama_index import ALM2VecEmbedding, ALM2VecRerank, AudioNode, AudioReader
from alm2vec_integrations.llama_index import settings as settings_module


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        yield core


@pytest.fixture
def embedding(fake, clips):
    return ALM2VecEmbedding(
        model_name=str(fake), trust_remote_code=True, device="cpu", allowed_audio_roots=[clips[0].parent]
    )


def test_constructing_loads_nothing_and_checks_names(fake):
    """Light, and closed to misspellings."""
    embedding = ALM2VecEmbedding(model_name=fake, trust_remote_code=True)
    assert isinstance(embedding, BaseEmbedding)
    assert embedding.class_name() == "ALM2VecEmbedding"
    assert fake_checkpoints.loads == []
    for wrong, message in (
        ({"instruction": "x"}, "instruction"),
        ({"max_batch_items": 0}, "max_batch_items"),
        ({"embed_batch_size": 0}, "embed_batch_size"),
        ({"text_instruction": "a", "document_instruction": "b"}, "document_instruction"),
        ({"allowed_audio_roots": [""]}, "allowed_audio_roots"),
    ):
        with pytest.raises(ValueError, match=message):
            ALM2VecEmbedding(model_name=str(fake), **wrong)
    with pytest.raises(ValidationError, match="model_name"):
        ALM2VecEmbedding()


class TestVectors:
    def test_they_are_the_cores_own(self, embedding, core, clips):
        """Bit for bit, as lists of Python floats, for texts, clips and clips with a question, sync and async."""
        clip = AudioClip(clips[0], start_seconds=0.1)
        for text in ("a\ntext", str(clips[0]), clip.reference()):
            document, query = core.encode_document(text).tolist(), core.encode_query(text).tolist()
            assert embedding.get_text_embedding(text) == document
            assert asyncio.run(embedding.aget_text_embedding(text)) == document
            assert embedding.get_text_embedding_batch([text]) == [document]
            assert embedding.get_query_embedding(text) == query
            assert asyncio.run(embedding.aget_query_embedding(text)) == query
        document = core.encode_document(clip).tolist()
        assert all(type(value) is float for value in embedding.get_audio_embedding(clip))
        assert embedding.get_audio_embedding(clip) == document
        assert asyncio.run(embedding.aget_audio_embedding(clip)) == document
        assert embedding.get_audio_embedding_batch([clip]) == [document]
        assert asyncio.run(embedding.aget_audio_embedding_batch([clip])) == [document]
        for question, item in ((None, clip), ("who?", AudioText("who?", clip))):
            expected = core.encode_query(item).tolist()
            assert embedding.get_audio_query_embedding(clip, question) == expected
            assert asyncio.run(embedding.aget_audio_query_embedding(clip, question)) == expected

    def test_kinds_are_mixed_in_order(self, embedding, core, clips):
        """One pass for texts and one for clips, whatever order they come in."""
        nodes = [
            TextNode(text="a"),
            AudioNode.from_clip(clips[0]),
            TextNode(text="b"),
            AudioNode.from_clip(AudioClip(clips[1], start_seconds=0.1, end_seconds=0.4)),
        ]
        items = ["a", AudioClip(clips[0]), "b", AudioClip(clips[1], start_seconds=0.1, end_seconds=0.4)]
        expected = core.encode_document(items).tolist()
        fake_checkpoints.calls.clear()
        assert [node.embedding for node in embedding(nodes)] == expected
        assert sorted(len(call.get("text") or call["audio"]) for call in fake_checkpoints.calls) == [2, 2]
        assert [node.embedding for node in asyncio.run(embedding.acall(nodes))] == expected

    def test_twenty_five_texts_are_one_pass(self, embedding):
        """And a batch size is LlamaIndex's own."""
        texts = [f"text {i}" for i in range(25)]
        expected = embedding.get_text_embedding_batch(texts)
        assert [len(call["text"]) for call in fake_checkpoints.calls if "text" in call][-1] == 25
        small = embedding.model_copy(update={"embed_batch_size": 10})
        fake_checkpoints.calls.clear()
        assert asyncio.run(small.aget_text_embedding_batch(texts)) == expected
        assert sorted(len(call["text"]) for call in fake_checkpoints.calls) == [5, 10, 10]
        assert embedding.get_text_embedding_batch([]) == []

    def test_instructions_call_over_field_over_default(self, embedding, clips):
        """And `with_instructions` makes copies that share the model."""
        other = embedding.with_instructions(query="field", document="stored")
        other.get_query_embedding("a")
        other.get_audio_query_embedding(clips[0], "b", instruction="call")
        other.get_audio_query_embedding(clips[0], "c", instruction="")
        other.get_text_embedding("d")
        other.with_instructions(query="").get_query_embedding("e")
        embedding.get_query_embedding("f")
        embedding.get_text_embedding("g")
        seen = {call["text"][0]: call["instruction"] for call in fake_checkpoints.calls if "text" in call}
        assert [seen[key] for key in "abcdefg"] == [
            "field", "call", "field", "stored", QUERY_INSTRUCTION, QUERY_INSTRUCTION, DOC_INSTRUCTION
        ]  # fmt: skip
        fake_checkpoints.calls.clear()
        other.get_audio_embedding(clips[0])
        other.get_audio_embedding(clips[0], instruction="call")
        assert [call["instruction"] for call in fake_checkpoints.calls] == ["stored", "call"]
        assert len(fake_checkpoints.loads) == 1
        with pytest.raises(TypeError, match="text"):
            embedding.with_instructions(text="x")
        with pytest.raises(InputError, match="query_instruction"):
            embedding.with_instructions(query=3)

    def test_the_other_name_of_the_documents_instruction(self, fake, core):
        """What other doors call it."""
        embedding = ALM2VecEmbedding(model_name=fake, trust_remote_code=True, document_instruction="stored")
        assert embedding.get_text_embedding("x") == core.encode_document("x", instruction="stored").tolist()

    def test_an_index_under_a_question(self, embedding, core, clips):
        """Audio documents are paired with the question and embedded as the card steers; texts are not paired."""
        index = embedding.model_copy(update={"document_task": "query", "document_question": "who?"})
        assert index.get_audio_embedding(clips[0]) == embedding.get_audio_query_embedding(clips[0], "who?")
        assert index.get_text_embedding("a text") == embedding.get_query_embedding("a text")
        assert index([AudioNode.from_clip(clips[0])])[0].embedding == index.get_audio_embedding(clips[0])

    def test_without_normalizing(self, embedding):
        """The field reaches the core."""
        raw = embedding.model_copy(update={"normalize": False}).get_query_embedding("x")
        assert np.linalg.norm(raw) != pytest.approx(1.0)

    @pytest.mark.parametrize("wrong", [3, "http://example.org/x.wav", None])
    def test_audio_that_is_none_is_named(self, embedding, clips, wrong):
        """By its place in the list."""
        with pytest.raises(InputError, match=r"^item 1[,:]"):
            embedding.get_audio_embedding_batch([clips[0], wrong])
        with pytest.raises(InputError, match="a list of clips, got one str"):
            embedding.get_audio_embedding_batch("x.wav")


class TestAccess:
    def test_nodes_are_opened_inside_the_roots_alone(self, embedding, clips, tmp_path):
        """Whether they come from a store or not; a clip that a call is given is the caller's affair."""
        elsewhere = sounds.write(tmp_path / "elsewhere" / "a.wav", sounds.noise(0.5))
        for node in (AudioNode.from_clip(elsewhere), Node.from_dict(AudioNode.from_clip(elsewhere).to_dict())):
            with pytest.raises(AudioAccessError, match="outside allowed_audio_roots"):
                embedding([node])
        with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
            embedding.model_copy(update={"allowed_audio_roots": None})([AudioNode.from_clip(clips[0])])
        assert embedding.get_audio_embedding(elsewhere)
        assert embedding.get_audio_query_embedding(elsewhere, "who?")

    def test_a_recording_that_has_changed(self, embedding, clips):
        """Is not embedded under a node made before."""
        node = AudioNode.from_clip(clips[0])
        sounds.write(clips[0], sounds.noise(0.5, seed=99))
        with pytest.raises(AudioAccessError, match="have changed"):
            embedding([node])

    def test_a_document_is_no_node(self, embedding, clips):
        """A store would bring it back without its audio."""
        with pytest.raises(InputError, match=r"AudioNodeParser\(\) first"):
            embedding(AudioReader().load_data(clips[0]))


class TestFields:
    def test_each_reaches_the_encoder(self, monkeypatch, tmp_path):
        """None is dropped on the way, and torch's own objects and paths are taken."""
        import torch

        made = {}
        monkeypatch.setattr(settings_module, "ALM2VecEncoder", lambda model, **given: made.update(given, model=model))
        given = {
            "revision": "main", "token": "hf_secret", "local_files_only": True, "trust_remote_code": False,
            "model_kwargs": {"a": 1}, "max_batch_items": 3, "max_batch_seconds": 4.5, "verify": "off",
            "batching": "equal",
        }  # fmt: skip
        ALM2VecEmbedding(
            model_name="owner/name", device=torch.device("cpu"), dtype=torch.float32, cache_dir=tmp_path,
            allowed_audio_roots=tmp_path, **given,
        )  # fmt: skip
        assert made == given | {
            "model": "owner/name", "device": "cpu", "dtype": "torch.float32", "cache_dir": str(tmp_path),
            "allowed_audio_roots": str(tmp_path),
        }  # fmt: skip

    def test_a_change_takes_effect(self, embedding, clips):
        """Closing the roots closes them, by a copy, by assignment, and in place."""
        node = AudioNode.from_clip(clips[0])
        assert embedding([node])
        with pytest.raises(AudioAccessError):
            embedding.model_copy(update={"allowed_audio_roots": None})([node])
        embedding.allowed_audio_roots.clear()
        with pytest.raises(AudioAccessError):
            embedding([node])

    def test_an_encoder_of_ones_own(self, encoder):
        """Anything that meets the protocol; what it would make moot is refused."""
        embedding = ALM2VecEmbedding(model_name="not-a-model", encoder=encoder)
        assert embedding.get_query_embedding("x") == encoder.encode_query("x").tolist()
        with pytest.raises(ValidationError, match="allowed_audio_roots"):
            ALM2VecEmbedding(model_name="x", encoder=encoder, allowed_audio_roots=["a"])

    def test_no_cache_by_text_alone(self, embedding, fake):
        """Neither given nor assigned."""
        with pytest.raises(ValidationError, match="goes by text alone"):
            ALM2VecEmbedding(model_name=fake, embeddings_cache=SimpleKVStore())
        with pytest.raises(ValidationError, match="frozen"):
            embedding.embeddings_cache = SimpleKVStore()


class TestDumps:
    def test_what_vectors_depend_on_comes_back(self, fake, tmp_path):
        """And nothing else: neither the device, nor what opens doors."""
        given = {
            "revision": "main", "dtype": "float32", "batching": "equal",
            "model_kwargs": {"attn_implementation": "eager"},
            "query_instruction": "q", "text_instruction": "t", "document_task": "query", "document_question": "who?",
            "normalize": False,
        }  # fmt: skip
        embedding = ALM2VecEmbedding(
            model_name=str(fake), token="hf_secret", device="cpu", trust_remote_code=True, cache_dir=tmp_path,
            allowed_audio_roots=tmp_path, max_batch_items=3, max_batch_seconds=5, verify="off", local_files_only=True,
            **given,
        )  # fmt: skip
        dumped = embedding.to_dict()
        of_llama_index = {"embed_batch_size": 256, "num_workers": None, "embeddings_cache": None}
        assert dumped == given | of_llama_index | {"model_name": str(fake), "class_name": "ALM2VecEmbedding"}
        assert json.loads(embedding.to_json()) == dumped
        again = ALM2VecEmbedding.from_dict(dumped, trust_remote_code=True)
        assert again.to_dict() == dumped

    @pytest.mark.parametrize("door", [name for name, field in ALM2VecEmbedding.model_fields.items() if field.exclude])
    def test_a_dump_opens_no_doors(self, embedding, door):
        """Only Python code does, with a keyword."""
        with pytest.raises(InputError, match=door):
            ALM2VecEmbedding.from_dict(embedding.to_dict() | {door: True})
        with pytest.raises(InputError, match=door):
            ALM2VecEmbedding.model_validate_json(json.dumps(embedding.to_dict() | {door: True}))
        with pytest.raises(ValidationError, match=door):
            ALM2VecRerank.from_dict({"embed_model": embedding.to_dict() | {door: True}})
        with pytest.raises(Exception, match="trust"):
            ALM2VecEmbedding.from_dict(embedding.to_dict()).get_query_embedding("x")
        trusted = ALM2VecEmbedding.from_dict(embedding.to_dict(), trust_remote_code=True, device="cpu")
        assert trusted.get_query_embedding("x") == embedding.get_query_embedding("x")

    def test_copies_share_the_model(self, embedding):
        """`model_copy`, `copy` and `deepcopy` load nothing, whether made before or after the first use."""
        before = [embedding.with_instructions(query="q"), copy.deepcopy(embedding)]
        expected = embedding.get_query_embedding("x")
        for twin in (embedding.model_copy(), embedding.model_copy(deep=True), copy.copy(embedding), before[1]):
            assert twin.get_query_embedding("x") == expected
        before[0].get_query_embedding("x")
        assert len(fake_checkpoints.loads) == 1

    @pytest.mark.parametrize("deep", [False, True])
    def test_copies_that_differ_keep_their_models(self, embedding, deep):
        """In turns, each loads once."""
        copies = [embedding.model_copy(update={"dtype": dtype}, deep=deep) for dtype in ("float32", "bfloat16")]
        for _ in range(3):
            for one in copies:
                one.get_query_embedding("x")
        assert len(fake_checkpoints.loads) == 2

    def test_a_pickle_without_a_rate_limiter(self, fake, caplog):
        """That holds a lock, as LlamaIndex's own does: said, and the embedding that was pickled keeps it."""
        limiter = TokenBucketRateLimiter(requests_per_minute=6000)
        embedding = ALM2VecEmbedding(model_name=fake, trust_remote_code=True, device="cpu", rate_limiter=limiter)
        again = pickle.loads(pickle.dumps(embedding))
        assert (embedding.rate_limiter, again.rate_limiter) == (limiter, None)
        assert "the rate limiter cannot be pickled" in caplog.text
        assert again.get_query_embedding("x") == embedding.get_query_embedding("x")

    def test_pickles_hold_neither_token_nor_weights(self, fake):
        """And pickling takes nothing from the object itself, as LlamaIndex's own does with what it cannot pickle."""
        manager = CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])
        manager.handlers[0].lock = threading.Lock()
        embedding = ALM2VecEmbedding(
            model_name=str(fake), trust_remote_code=True, token="hf_secret", query_instruction="q",
            callback_manager=manager, device="cpu",
        )  # fmt: skip
        expected = embedding.get_query_embedding("x")
        pickled = pickle.dumps(embedding)
        assert embedding.callback_manager is manager
        assert b"hf_secret" not in pickled
        assert len(pickled) < 4000
        assert pickle.loads(pickled).get_query_embedding("x") == expected
        assert isinstance(embedding.token, SecretStr)
        assert "hf_secret" not in f"{embedding!r} {embedding.model_dump()!r} {embedding.to_payload()}"


class TestObservers:
    def test_events_and_callbacks_as_for_text(self, embedding, clips):
        """One start and one end for each batch, with chunks that are strings and say what was embedded."""
        seen = []

        class Handler(BaseEventHandler):
            @classmethod
            def class_name(cls):
                return "Handler"

            def handle(self, event, **kwargs):
                if isinstance(event, (EmbeddingStartEvent, EmbeddingEndEvent)):
                    seen.append(event)

        debug = LlamaDebugHandler(print_trace_on_end=False)
        embedding.callback_manager = CallbackManager([debug])
        handler = Handler()
        root = get_dispatcher()
        root.add_event_handler(handler)
        try:
            vectors = embedding.get_audio_embedding_batch(clips[:2])
            query = asyncio.run(embedding.aget_audio_query_embedding(clips[0], "who?"))
        finally:
            root.event_handlers.remove(handler)
        assert [type(event) for event in seen] == [EmbeddingStartEvent, EmbeddingEndEvent] * 2
        assert seen[1].embeddings == vectors
        assert [chunk.split("/")[-1] for chunk in seen[1].chunks] == ["0.wav", "1.wav"]
        assert seen[3].chunks[0].startswith("who?\naudio:/")
        assert json.loads(seen[3].model_dump_json())["embeddings"] == [query]
        payloads = [pair[1].payload for pair in debug.get_event_pairs(CBEventType.EMBEDDING)]
        assert [payload[EventPayload.EMBEDDINGS] for payload in payloads] == [vectors, [query]]

    def test_rate_limits_hold(self, embedding, clips):
        """For audio too."""

        class Limiter(BaseRateLimiter):
            taken = 0

            def acquire(self, num_tokens=0):
                self.taken += 1

            async def async_acquire(self, num_tokens=0):
                self.taken += 1

        limited = embedding.model_copy(update={"rate_limiter": (limiter := Limiter())})
        limited.get_audio_embedding(clips[0])
        asyncio.run(limited.aget_audio_embedding_batch(clips[:2]))
        assert limiter.taken == 2


async def test_a_pass_leaves_the_event_loop_free(embedding, clips):
    """While the model works, other tasks run."""
    await embedding.aget_query_embedding("loads the model")
    fake_checkpoints.on_encode = lambda model, keywords: time.sleep(0.3)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await embedding.acall([AudioNode.from_clip(clips[0])])
    ticking.cancel()
    assert ticks > 10
