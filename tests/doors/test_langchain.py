"""ALM2Vec behind LangChain's `Embeddings`, in LangChain's own in-memory store."""

import asyncio
import copy
import pickle
import warnings
from pathlib import Path

import fake_checkpoints
import numpy as np
import pytest
import sounds
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
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
from alm2vec_integrations.langchain import ALM2VecEmbeddings
from alm2vec_integrations.langchain import embeddings as embeddings_module


@pytest.fixture
def core(fake, clips):
    """The encoder that the embeddings below make for themselves."""
    with ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=[clips[0].parent]) as core:
        yield core


@pytest.fixture
def embeddings(fake, clips):
    return ALM2VecEmbeddings(model=str(fake), trust_remote_code=True, allowed_audio_roots=[clips[0].parent])


def test_constructing_loads_nothing_and_checks_names(fake):
    """Light, closed to misspellings, and by either name of the field."""
    embeddings = ALM2VecEmbeddings(model_name=str(fake), trust_remote_code=True)
    assert isinstance(embeddings, Embeddings)
    assert fake_checkpoints.loads == []
    with pytest.raises(ValidationError, match="instruction"):
        ALM2VecEmbeddings(model=str(fake), instruction="x")
    with pytest.raises(ValidationError, match="model is missing: give"):
        ALM2VecEmbeddings()
    with pytest.raises(ValidationError, match="max_batch_items"):
        ALM2VecEmbeddings(model=str(fake), max_batch_items=0)


def test_empty_lists_load_nothing(embeddings):
    """`[]` for `[]`."""
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_audio([]) == []
    assert asyncio.run(embeddings.aembed_documents([])) == []
    assert fake_checkpoints.loads == []


@pytest.mark.parametrize("wrong", [3, "http://example.org/x.wav", None])
def test_audio_that_is_none_is_named(embeddings, clips, wrong):
    """By its place in the list."""
    with pytest.raises(InputError, match=r"^item 1[,:]"):
        embeddings.embed_audio([clips[0], wrong])
    with pytest.raises(InputError, match=r"^item 1[,:]"):
        asyncio.run(embeddings.aembed_audio([clips[0], wrong]))
    with pytest.raises(InputError, match="embed_audio takes a list of clips, got one str"):
        embeddings.embed_audio("x.wav")


class TestVectors:
    def test_they_are_the_cores_own(self, embeddings, core, clips):
        """Bit for bit, as lists of Python floats, for texts, references and clips, sync and async."""
        reference = AudioClip(clips[0], start_seconds=0.1).reference()
        clip = AudioClip(clips[0], start_seconds=0.1)
        documents = embeddings.embed_documents(["a\ntext", reference, "b"])
        assert all(type(value) is float for row in documents for value in row)
        assert documents == core.encode(["a\ntext", clip, "b"], task="document").tolist()
        assert asyncio.run(embeddings.aembed_documents(["a\ntext", reference, "b"])) == documents
        assert (
            embeddings.embed_audio([clip, clips[1], str(clips[2])])
            == core.encode([clip, AudioClip(clips[1]), AudioClip(clips[2])], task="document").tolist()
        )
        assert asyncio.run(embeddings.aembed_audio([clip])) == embeddings.embed_audio([clip])
        assert embeddings.embed_query("q") == core.encode("q", task="query").tolist()
        assert asyncio.run(embeddings.aembed_query("q")) == embeddings.embed_query("q")
        for question, item in ((None, clip), ("who?", AudioText("who?", clip))):
            expected = core.encode(item, task="query").tolist()
            assert embeddings.embed_audio_query(clip, question) == expected
            assert asyncio.run(embeddings.aembed_audio_query(clip, question)) == expected

    def test_instructions_call_over_field_over_default(self, embeddings):
        """And `with_instructions` makes copies that share the model."""
        other = embeddings.with_instructions(query="field", document="stored")
        other.embed_query("a")
        other.embed_query("b", instruction="call")
        other.embed_query("c", instruction="")
        other.embed_documents(["d"])
        other.with_instructions(query="").embed_query("e")
        embeddings.embed_query("f")
        embeddings.embed_documents(["g"], instruction="call")
        embeddings.embed_documents(["h"])
        seen = {call["text"][0]: call["instruction"] for call in fake_checkpoints.calls}
        assert [seen[key] for key in "abcdefgh"] == [
            "field", "call", "field", "stored", QUERY_INSTRUCTION, QUERY_INSTRUCTION, "call", DOC_INSTRUCTION
        ]  # fmt: skip
        assert len(fake_checkpoints.loads) == 1
        with pytest.raises(TypeError, match="text"):
            embeddings.with_instructions(text="x")

    def test_an_index_under_a_question(self, embeddings, clips):
        """Audio documents are paired with the question and embedded as the card steers; texts are not."""
        index = embeddings.with_settings(document_task="query", document_question="who?")
        vectors = index.embed_documents([AudioClip(clips[0]).reference(), "a text"])
        assert vectors[0] == embeddings.embed_audio_query(clips[0], "who?")
        assert vectors[1] == embeddings.embed_query("a text")

    def test_without_normalizing(self, fake):
        """The field reaches the core."""
        raw = ALM2VecEmbeddings(model=str(fake), trust_remote_code=True, normalize=False).embed_query("x")
        assert np.linalg.norm(raw) != pytest.approx(1.0)


class TestFields:
    def test_each_reaches_the_encoder(self, monkeypatch, tmp_path):
        """None is dropped on the way, and torch's own objects and paths are taken."""
        import torch

        made = {}
        monkeypatch.setattr(embeddings_module, "ALM2VecEncoder", lambda model, **given: made.update(given, model=model))
        given = {
            "revision": "main", "token": "hf_secret", "local_files_only": True, "trust_remote_code": False,
            "model_kwargs": {"a": 1}, "max_batch_items": 3, "max_batch_seconds": 4.5, "verify": "off",
            "batching": "equal",
        }  # fmt: skip
        ALM2VecEmbeddings(
            model="owner/name",
            device=torch.device("cpu"),
            dtype=torch.float32,
            cache_dir=tmp_path,
            allowed_audio_roots=tmp_path,
            **given,
        )
        assert made | {"trust_remote_code": False} == given | {
            "model": "owner/name", "device": "cpu", "dtype": "torch.float32", "cache_dir": str(tmp_path),
            "allowed_audio_roots": str(tmp_path),
        }  # fmt: skip

    def test_a_path_is_a_folder(self, fake):
        """As for the encoder."""
        assert ALM2VecEmbeddings(model=fake, trust_remote_code=True).embed_query("x")

    @pytest.mark.parametrize("change", ["copy", "assignment"])
    def test_a_change_takes_effect(self, embeddings, clips, change):
        """Closing the roots closes them, and another model is another model."""

        def changed(**update):
            if change == "copy":
                return embeddings.model_copy(update=update)
            twin = embeddings.model_copy()
            for name, value in update.items():
                setattr(twin, name, value)
            return twin

        reference = AudioClip(clips[0]).reference()
        assert embeddings.embed_documents([reference])
        with pytest.raises(AudioAccessError):
            changed(allowed_audio_roots=None).embed_documents([reference])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(changed(model_name="alm2vec-tiny").embed_query("x")) != fake_checkpoints.DIM
        with pytest.raises((InputError, ValidationError), match="max_batch_items"):
            changed(max_batch_items="garbage").embed_query("x")
        assert embeddings.embed_documents([reference])

    def test_a_change_in_place_takes_effect(self, fake, clips):
        """A list that is cleared is closed."""
        embeddings = ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=[clips[0].parent])
        reference = AudioClip(clips[0]).reference()
        assert embeddings.embed_documents([reference])
        embeddings.allowed_audio_roots.clear()
        with pytest.raises(AudioAccessError):
            embeddings.embed_documents([reference])

    def test_another_token_is_used(self, fake):
        """A token that was renewed replaces the old one."""
        embeddings = ALM2VecEmbeddings(model=fake, trust_remote_code=True, token="old")
        assert embeddings.model_copy(update={"token": SecretStr("new")})._core()._token == "new"

    def test_equal_fields_are_equal_embeddings(self, fake):
        """Whether they have been used or pickled in between does not matter."""
        one, two = (ALM2VecEmbeddings(model=fake, trust_remote_code=True) for _ in range(2))
        one.embed_query("x")
        assert one == two
        assert pickle.loads(pickle.dumps(one)) == one
        assert one != ALM2VecEmbeddings(model=fake, trust_remote_code=True, query_instruction="x")

    def test_home_is_expanded_in_every_form(self):
        """A path object and its text are one folder."""
        forms = [ALM2VecEmbeddings(model=form("~/x"), trust_remote_code=True) for form in (str, Path)]
        assert forms[0]._core().model == forms[1]._core().model

    def test_an_encoder_of_ones_own_leaves_no_field_ignored(self, encoder):
        """What it would make moot is refused."""
        with pytest.raises(ValidationError, match="allowed_audio_roots"):
            ALM2VecEmbeddings(encoder=encoder, allowed_audio_roots=["a"])
        with pytest.raises(ValidationError, match=r"encoder has a model already, .*: leave out model='x'"):
            ALM2VecEmbeddings(model="x", encoder=encoder)

    @pytest.mark.parametrize("wrong", [3, "alm2vec-tiny", object()])
    def test_what_is_no_encoder(self, wrong):
        """Refused before it is needed."""
        with pytest.raises(ValidationError, match="encoder must have encode and aencode"):
            ALM2VecEmbeddings(encoder=wrong)

    def test_one_string_is_not_a_list_and_a_list_not_a_query(self, embeddings):
        """Each would give vectors of the wrong things."""
        with pytest.raises(InputError, match="wrap it in a list"):
            embeddings.embed_documents("abc")
        with pytest.raises(InputError, match="one str"):
            embeddings.embed_query(["a", "b"])

    def test_progress_on_request(self, embeddings, capfd):
        """A field, so that a store's own calls show it."""
        embeddings.model_copy(update={"show_progress": True}).embed_documents(["a", "b"])
        assert "2/2" in capfd.readouterr().err


class TestSettings:
    """`with_settings`, which checks what `model_copy` takes on trust."""

    def test_a_copy_that_shares_the_model(self, embeddings):
        """And leaves the original alone."""
        expected = embeddings.embed_query("x")
        other = embeddings.with_settings(document_task="query", document_question="who?", normalize=False)
        assert (other.document_task, other.document_question, other.normalize) == ("query", "who?", False)
        assert (embeddings.document_task, embeddings.document_question, embeddings.normalize) == (
            "document",
            None,
            True,
        )
        assert embeddings.with_settings().embed_query("x") == other.with_settings(normalize=True).embed_query("x")
        assert embeddings.embed_query("x") == expected
        assert len(fake_checkpoints.loads) == 1

    def test_another_model(self, embeddings, tmp_path):
        """By either name, with a path as at construction."""
        for name in ("model", "model_name"):
            changed = embeddings.with_settings(**{name: tmp_path}, trust_remote_code=False)
            assert changed._core().model == changed.model_name == str(tmp_path)

    @pytest.mark.parametrize(
        ("settings", "kind", "message"),
        [
            (
                {"document_qestion": "who?"},
                InputError,
                "no setting 'document_qestion': did you mean 'document_question'",
            ),
            ({"nonsense": 1}, InputError, "no setting 'nonsense'$"),
            ({"document_task": "index"}, ValidationError, "'query' or 'document'"),
            ({"document_question": 3}, ValidationError, "valid string"),
            ({"max_batch_items": 0}, ValidationError, "max_batch_items must be"),
            ({"encoder": 3}, InputError, "another encoder makes other embeddings"),
            ({"encoder": None}, InputError, "another encoder makes other embeddings"),
        ],
    )
    def test_refusals(self, embeddings, settings, kind, message):
        before = embeddings.model_copy()
        with pytest.raises(kind, match=message):
            embeddings.with_settings(**settings)
        assert embeddings == before


class TestSharing:
    def test_copies_share_the_model(self, embeddings):
        """`model_copy`, `copy` and `deepcopy` load nothing."""
        expected = embeddings.embed_query("x")
        for twin in (
            embeddings.model_copy(),
            embeddings.model_copy(deep=True),
            copy.copy(embeddings),
            copy.deepcopy(embeddings),
        ):
            assert twin.embed_query("x") == expected
        assert len(fake_checkpoints.loads) == 1

    def test_pickles_hold_no_token(self, fake):
        """Nor does anything printed or dumped."""
        embeddings = ALM2VecEmbeddings(model=str(fake), trust_remote_code=True, token="hf_secret")
        expected = embeddings.embed_query("x")
        pickled = pickle.dumps(embeddings)
        assert b"hf_secret" not in pickled
        assert pickle.loads(pickled).embed_query("x") == expected
        assert "hf_secret" not in f"{embeddings!r} {embeddings.model_dump()!r} {embeddings.model_dump_json()}"

    def test_another_encoder_can_be_put_in(self, encoder):
        """Anything that meets the protocol."""
        embeddings = ALM2VecEmbeddings(encoder=encoder)
        assert encoder.model in repr(embeddings)
        assert embeddings == ALM2VecEmbeddings(model=encoder.model, encoder=encoder)
        assert fake_checkpoints.loads == []
        assert embeddings.embed_query("x") == encoder.encode("x", task="query").tolist()

    def test_an_encoder_without_a_name_is_given_one(self, encoder):
        """By which caches tell it from others."""

        class Other:
            encode, aencode = encoder.encode, encoder.aencode

        with pytest.raises(ValidationError, match="give one, a name"):
            ALM2VecEmbeddings(encoder=Other())
        one, two = (ALM2VecEmbeddings(model=name, encoder=Other()) for name in ("a", "b"))
        assert one.cache_namespace != two.cache_namespace
        assert one.embed_query("x") == encoder.encode("x", task="query").tolist()


class TestReferences:
    def test_a_query_is_never_opened(self, embeddings, core, clips):
        """A string in the form of a reference is text on the query side."""
        reference = AudioClip(clips[0]).reference()
        assert embeddings.embed_query(reference) == core.encode(reference, task="query").tolist()

    def test_outside_the_roots(self, fake, embeddings, tmp_path):
        """Refused, naming the item; and nothing is open by default."""
        outside = AudioClip(sounds.write(tmp_path / "out.wav", sounds.noise(0.5))).reference()
        with pytest.raises(AudioAccessError, match=r"item 1, .*outside"):
            embeddings.embed_documents(["text", outside])
        closed = ALM2VecEmbeddings(model=str(fake), trust_remote_code=True)
        with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
            closed.embed_documents([outside])

    @pytest.mark.parametrize("bad", ["audio:https://example.org/a.wav", "audio:a.wav#t=1,", "audio:"])
    def test_malformed_ones_name_the_item(self, embeddings, bad):
        """Half a reference is not embedded as text."""
        with pytest.raises(InputError, match="item 1"):
            embeddings.embed_documents(["text", bad])


class TestStore:
    @pytest.fixture
    def embeddings(self, tiny, library):
        return ALM2VecEmbeddings(model="alm2vec-tiny", device="cpu", allowed_audio_roots=library[0].parent)

    def store(self, embeddings, library):
        store = InMemoryVectorStore(embeddings)
        store.add_texts([AudioClip(path).reference() for path in library], [{"source": p.name} for p in library])
        store.add_texts(["a man speaking over traffic"], [{"source": "text"}])
        return store

    def sources(self, found):
        return [document.metadata["source"] for document in found]

    def test_found_by_text_and_by_clip(self, embeddings, library):
        """The recording that a text describes; for a recording, itself and the text that describes it."""
        store = self.store(embeddings, library)
        assert self.sources(store.similarity_search("a cat meowing over guitar music", k=1)) == ["cat over guitar.flac"]
        clip = next(path for path in library if path.name == "man over traffic.flac")
        vector = embeddings.embed_audio_query(clip)
        assert self.sources(store.similarity_search_by_vector(vector, k=2)) == ["man over traffic.flac", "text"]

    def test_two_questions_find_two_recordings(self, embeddings, library):
        """The same clip, after itself: by what is behind, and by what is in front."""
        found = []
        for question in ("Describe the background noise of this audio?", "What is the main sound?"):
            aspect = embeddings.with_settings(document_task="query", document_question=question)
            vector = aspect.embed_audio_query(library[0], question)
            found.append(self.sources(self.store(aspect, library).similarity_search_by_vector(vector, k=2)))
        assert found == [
            ["dog over rain.flac", "knock over rain.flac"],
            ["dog over rain.flac", "dog over piano.flac"],
        ]

    def test_scores_are_the_cores_cosines(self, embeddings, tiny, library):
        """In the store's order."""
        documents = tiny.encode([AudioClip(path) for path in library], task="document")
        expected = np.sort(documents @ tiny.encode("rain", task="query"))[::-1][:4]
        store = InMemoryVectorStore(embeddings)
        store.add_texts([AudioClip(path).reference() for path in library])
        found = store.similarity_search_with_score("rain", k=4)
        np.testing.assert_allclose([score for _, score in found], expected, atol=1e-5)

    async def test_the_stores_own_search(self, embeddings, library):
        """`similarity_search` and its async twin take a string and embed it as a query."""
        store = self.store(embeddings, library)
        found = self.sources(store.similarity_search("rain", k=8))
        assert found == self.sources(await store.asimilarity_search("rain", k=8))
        assert set(found[:2]) == {"dog over rain.flac", "knock over rain.flac"}
        assert set(found) == {"text", *(path.name for path in library)}
