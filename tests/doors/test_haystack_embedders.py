"""The embedders of the Haystack door: what every embedder there is tested for, on a strict fake model."""

import asyncio
import copy
import logging
import threading

import fake_checkpoints
import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import (
    DOC_INSTRUCTION,
    QUERY_INSTRUCTION,
    ALM2VecEncoder,
    AudioClip,
    AudioText,
    CheckpointError,
    InputError,
)
from alm2vec_integrations.haystack import ALM2VecDocumentEmbedder, ALM2VecQueryEmbedder, ALM2VecTextEmbedder

HOME = "haystack_integrations.components.embedders.alm2vec"
ENV_TOKEN = {"type": "env_var", "env_vars": ["HF_API_TOKEN", "HF_TOKEN"], "strict": False}
COMMON = {
    "model": "owner/name", "device": None, "token": ENV_TOKEN, "revision": None, "trust_remote_code": None,
    "local_files_only": False, "dtype": None, "model_kwargs": None, "batch_size": 32,
    "max_batch_seconds": 480.0, "batching": "similar", "verify": "full", "progress_bar": True,
    "normalize_embeddings": True,
}  # fmt: skip
OWN = {
    ALM2VecTextEmbedder: ("text_embedder", {"instruction": None, "task": "query"}),
    ALM2VecQueryEmbedder: ("query_embedder", {"instruction": None, "task": "query", "root_path": None}),
    ALM2VecDocumentEmbedder: (
        "document_embedder",
        {
            "prefix": "", "suffix": "", "meta_fields_to_embed": [], "embedding_separator": "\n",
            "file_path_meta_field": "file_path", "root_path": None, "task": "document", "instruction": None,
            "document_question": None, "raise_on_failure": True,
        },
    ),
}  # fmt: skip
CHANGED = {
    "model": "owner/name", "device": {"type": "single", "device": "cuda:0"},
    "token": {"type": "env_var", "env_vars": ["MY_TOKEN"], "strict": True}, "revision": "v1",
    "trust_remote_code": True, "local_files_only": True, "dtype": "bfloat16",
    "model_kwargs": {"attn_implementation": "sdpa"}, "batch_size": 8, "max_batch_seconds": 60.0, "batching": "single",
    "verify": "off", "progress_bar": False, "normalize_embeddings": False,
}  # fmt: skip
OWN_CHANGED = {
    ALM2VecTextEmbedder: {"instruction": "i", "task": "document"},
    ALM2VecQueryEmbedder: {"instruction": "i", "task": "document", "root_path": "/root"},
    ALM2VecDocumentEmbedder: {
        "prefix": "p", "suffix": "s", "meta_fields_to_embed": ["m"], "embedding_separator": " | ",
        "file_path_meta_field": "path", "root_path": "/root", "task": "query", "instruction": "i",
        "document_question": "q?", "raise_on_failure": False,
    },
}  # fmt: skip
ALL = list(OWN)


def name_of(kind):
    return kind.__name__


@pytest.fixture
def made(fake, clips):
    """Makes a component on the fake model."""

    def make(kind, **given):
        if kind is ALM2VecDocumentEmbedder:
            given = {"root_path": clips[0].parent, **given}
        settings = {"device": ComponentDevice.from_str("cpu"), "progress_bar": False, "trust_remote_code": True}
        return kind(model=fake, **settings | given)

    return make


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        yield core


def run(component, *, in_loop=False, **given):
    return asyncio.run(component.run_async(**given)) if in_loop else component.run(**given)


@pytest.mark.parametrize("kind", ALL, ids=name_of)
class TestConfiguration:
    def test_defaults(self, kind):
        """What is not given, as attributes and as a dictionary."""
        embedder = kind(model="owner/name")
        module, own = OWN[kind]
        assert embedder.to_dict() == {
            "type": f"{HOME}.{module}.{kind.__name__}",
            "init_parameters": COMMON | own,
        }
        assert embedder.device is None
        assert embedder.token == Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)
        plain = {name: value for name, value in (COMMON | own).items() if name != "token"}
        assert {name: getattr(embedder, name) for name in plain} == plain

    def test_parameters(self, kind):
        """Every one of them goes into the dictionary, and comes back from it."""
        data = {"type": f"{HOME}.{OWN[kind][0]}.{kind.__name__}", "init_parameters": CHANGED | OWN_CHANGED[kind]}
        before = copy.deepcopy(data)
        embedder = kind.from_dict(data)
        assert data == before
        assert embedder.to_dict() == data
        assert embedder.device == ComponentDevice.from_str("cuda:0")
        assert embedder.token == Secret.from_env_var("MY_TOKEN")
        assert set(data["init_parameters"]) == set(COMMON | OWN[kind][1])

    def test_from_dict_without_a_device(self, kind):
        """None stays None: the machine that loads it decides."""
        data = kind(model="owner/name").to_dict()
        assert kind.from_dict(data).device is None
        assert kind.from_dict({"type": data["type"], "init_parameters": {"model": "owner/name"}}).to_dict() == data

    def test_a_token_is_not_written_down(self, kind):
        """Only the name of a variable is."""
        with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
            kind(model="owner/name", token=Secret.from_token("hf_secret")).to_dict()

    def test_model_kwargs_stay_as_they_are(self, kind):
        """The component's own, when a dtype in them is written down, and the caller's."""
        import torch

        kwargs = {"quantization_config": {"compute_dtype": torch.bfloat16}}
        embedder = kind(model="owner/name", model_kwargs=kwargs)
        data = embedder.to_dict()
        assert data["init_parameters"]["model_kwargs"] == {"quantization_config": {"compute_dtype": "torch.bfloat16"}}
        assert kwargs == embedder.model_kwargs == {"quantization_config": {"compute_dtype": torch.bfloat16}}
        assert kind.from_dict(data).model_kwargs == kwargs

    def test_paths_become_text(self, kind, tmp_path):
        """As YAML needs them."""
        given = {} if kind is ALM2VecTextEmbedder else {"root_path": tmp_path}
        pipeline = Pipeline()
        pipeline.add_component("it", kind(model=tmp_path, **given))
        again = Pipeline.loads(pipeline.dumps()).get_component("it")
        assert again.model == str(tmp_path)
        assert again.to_dict()["init_parameters"].get("root_path", str(tmp_path)) == str(tmp_path)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"device": "cpu"}, "device must be a ComponentDevice"),
            ({"token": "hf_secret"}, "token must be a Secret"),
            ({"batch_size": 0}, "batch_size must be"),
            ({"task": "passage"}, "task must be one of"),
            ({"instruction": 3}, "instruction must be a str"),
            ({"model_kwargs": {"torch_dtype": "auto"}}, "own argument dtype"),
            ({"progress_bar": 1}, "progress_bar must be True or False"),
        ],
    )
    def test_wrong_arguments_are_named_at_once(self, kind, wrong, message):
        """Before anything is loaded; a token is not shown."""
        with pytest.raises(InputError, match=message) as caught:
            kind(**{"model": "owner/name"} | wrong)
        assert "hf_secret" not in str(caught.value)

    def test_only_keywords(self, kind):
        """And none that there are not."""
        with pytest.raises(TypeError):
            kind("owner/name")
        with pytest.raises(TypeError, match="query_instruction"):
            kind(model="owner/name", query_instruction="x")


class TestDevices:
    def test_a_map_of_devices_goes_to_transformers(self):
        """And two maps are a mistake."""
        device = ComponentDevice.from_dict({"type": "multiple", "device_map": {"a": "cpu", "b": "disk"}})
        embedder = ALM2VecTextEmbedder(model="owner/name", device=device)
        given = embedder._encoder_arguments()
        assert (given["model_kwargs"], given.get("device")) == (
            {"device_map": {"a": "cpu", "b": "disk"}}, None
        )  # fmt: skip
        with pytest.raises(InputError, match="leave one of them out"):
            ALM2VecTextEmbedder(model="owner/name", device=device, model_kwargs={"device_map": "auto"})


@pytest.mark.parametrize("kind", ALL, ids=name_of)
class TestLifecycle:
    def one(self, kind):
        if kind is ALM2VecDocumentEmbedder:
            return {"documents": [Document(content="x")]}
        return {"text": "x"}

    def test_warming_up_loads_once(self, made, kind):
        """Constructing does not, and a second time does not either."""
        embedder = made(kind)
        assert fake_checkpoints.loads == []
        embedder.warm_up()
        embedder.warm_up()
        embedder.run(**self.one(kind))
        assert len(fake_checkpoints.loads) == 1

    def test_running_warms_up(self, made, kind):
        """So that a component works by itself."""
        made(kind).run(**self.one(kind))
        assert len(fake_checkpoints.loads) == 1

    def test_warming_up_leaves_the_event_loop_alone(self, made, kind, monkeypatch):
        """The load is in another thread."""
        threads = []
        monkeypatch.setattr(fake_checkpoints, "on_encode", lambda *_: threads.append(threading.current_thread()))
        asyncio.run(made(kind).warm_up_async())
        assert threads
        assert threading.main_thread() not in threads

    def test_a_run_leaves_the_event_loop_alone(self, made, kind, monkeypatch):
        """Without having been warmed up, too."""
        threads = []
        monkeypatch.setattr(fake_checkpoints, "on_encode", lambda *_: threads.append(threading.current_thread()))
        run(made(kind), in_loop=True, **self.one(kind))
        assert threads
        assert threading.main_thread() not in threads

    def test_closing_releases_and_a_run_loads_again(self, made, kind):
        """Closing twice, and before anything was loaded, does no harm."""
        embedder = made(kind)
        embedder.close()
        embedder.run(**self.one(kind))
        embedder.close()
        asyncio.run(embedder.close_async())
        embedder.run(**self.one(kind))
        assert len(fake_checkpoints.loads) == 2

    def test_telemetry_says_nothing_of_the_users_own(self, made, kind):
        """A path, or a private name, is "other"."""
        assert made(kind)._get_telemetry_data() == {"model": "other"}
        assert kind(model="cara-ai/ALM2Vec-FT")._get_telemetry_data() == {"model": "cara-ai/ALM2Vec-FT"}

    def test_the_token_is_read_when_the_model_is_loaded(self, kind, monkeypatch):
        """From the environment of that moment."""
        monkeypatch.delenv("MY_TOKEN", raising=False)
        embedder = kind(model="owner/name", token=Secret.from_env_var("MY_TOKEN"))
        with pytest.raises(ValueError, match="MY_TOKEN"):
            embedder.warm_up()
        monkeypatch.setenv("MY_TOKEN", "hf_secret")
        with pytest.raises(CheckpointError, match="trust_remote_code"):
            embedder.warm_up()


@pytest.mark.parametrize("in_loop", [False, True], ids=["run", "run_async"])
class TestTextEmbedder:
    def test_the_vector_is_the_cores_own(self, made, core, in_loop):
        """Bit for bit, as Python floats, and nothing else comes out."""
        found = run(made(ALM2VecTextEmbedder), in_loop=in_loop, text="a dog")
        assert found == {"embedding": core.encode_query("a dog").tolist()}
        assert {type(value) for value in found["embedding"]} == {float}
        document = run(made(ALM2VecTextEmbedder, task="document"), in_loop=in_loop, text="a dog")
        assert document["embedding"] == core.encode_document("a dog").tolist()

    def test_instructions_call_over_constructor_over_default(self, made, in_loop):
        """None sticks to the component."""
        plain, own = made(ALM2VecTextEmbedder), made(ALM2VecTextEmbedder, instruction="own")
        for embedder, text, instruction in (
            (own, "a", None), (own, "b", "call"), (own, "c", None), (own, "d", ""),
            (plain, "e", None), (plain, "f", "x"),
        ):  # fmt: skip
            run(embedder, in_loop=in_loop, text=text, instruction=instruction)
        seen = {call["text"][0]: call["instruction"] for call in fake_checkpoints.calls if "audio" not in call}
        assert [seen[key] for key in "abcdef"] == ["own", "call", "own", "own", QUERY_INSTRUCTION, "x"]

    @pytest.mark.parametrize("wrong", [3, ["a"], None, b"a", Document(content="a")], ids=str)
    def test_what_is_no_string(self, made, in_loop, wrong):
        """The error names the component for it, and nothing is loaded."""
        with pytest.raises(TypeError, match=r"expects a string as input.*ALM2VecDocumentEmbedder"):
            run(made(ALM2VecTextEmbedder), in_loop=in_loop, text=wrong)
        assert fake_checkpoints.loads == []

    def test_without_normalizing(self, made, in_loop):
        """The argument reaches the core."""
        vector = run(made(ALM2VecTextEmbedder, normalize_embeddings=False), in_loop=in_loop, text="x")["embedding"]
        assert np.linalg.norm(vector) != pytest.approx(1.0)

    def test_a_progress_bar_on_request(self, made, in_loop, capfd):
        """On standard error."""
        run(made(ALM2VecTextEmbedder), in_loop=in_loop, text="x")
        assert "ALM2Vec" not in capfd.readouterr().err
        run(made(ALM2VecTextEmbedder, progress_bar=True), in_loop=in_loop, text="x")
        assert "ALM2Vec" in capfd.readouterr().err

    def test_a_reference_is_text_here(self, made, core, in_loop, clips):
        """As every string."""
        reference = AudioClip(clips[0]).reference()
        found = run(made(ALM2VecTextEmbedder), in_loop=in_loop, text=reference)
        assert found["embedding"] == core.encode_query(reference).tolist()


@pytest.mark.parametrize("in_loop", [False, True], ids=["run", "run_async"])
class TestQueryEmbedder:
    def test_every_kind_of_query(self, made, core, clips, in_loop):
        """By text, by clip, and by clip with a question, from a path, bytes or a list of one."""
        embedder = made(ALM2VecQueryEmbedder)
        clip, data = AudioClip(clips[0]), ByteStream(clips[0].read_bytes())
        part = ByteStream(data.data, meta={"start_seconds": 0.1, "end_seconds": 0.4})
        for given, item in (
            ({"text": "a dog"}, "a dog"),
            ({"audio": clips[0]}, clip),
            ({"audio": str(clips[0])}, clip),
            ({"audio": data}, clip),
            ({"audio": [clips[0]]}, clip),
            ({"audio": part}, AudioClip(clips[0], start_seconds=0.1, end_seconds=0.4)),
            ({"audio": clips[0], "text": "who?"}, AudioText("who?", clip)),
        ):
            assert run(embedder, in_loop=in_loop, **given) == {"embedding": core.encode_query(item).tolist()}
        told = run(embedder, in_loop=in_loop, audio=clips[0], instruction="call")
        assert told["embedding"] == core.encode_query(clip, instruction="call").tolist()

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({}, InputError, "both are None"),
            ({"audio": []}, InputError, "exactly one, got 0"),
            ({"audio": ["a.wav", "b.wav"]}, InputError, "exactly one, got 2"),
            ({"audio": 3}, TypeError, "a path or a ByteStream, got int"),
            ({"text": 3}, TypeError, "text must be a string, got int"),
            ({"audio": "https://example.org/a.wav"}, InputError, "download the file first"),
            ({"audio": "none.wav"}, InputError, "cannot be opened"),
            ({"text": ""}, InputError, "text is empty"),
        ],
    )
    def test_what_is_no_query(self, made, given, error, message, in_loop):
        """Each says what it is, also where the model would be refused; and what need not be opened costs no load."""
        with pytest.raises(error, match=message):
            run(made(ALM2VecQueryEmbedder), in_loop=in_loop, **given)
        if given != {"audio": "none.wav"}:
            assert fake_checkpoints.loads == []
            unknown = ALM2VecQueryEmbedder(model="owner/name", progress_bar=False)
            with pytest.raises(error, match=message):
                run(unknown, in_loop=in_loop, **given)

    def test_paths_stay_inside_root_path(self, made, core, clips, in_loop):
        """They are relative to it, and it has that name in the error."""
        embedder = made(ALM2VecQueryEmbedder, root_path=clips[0].parent)
        expected = core.encode_query(AudioClip(clips[0])).tolist()
        assert run(embedder, in_loop=in_loop, audio="0.wav")["embedding"] == expected
        assert run(embedder, in_loop=in_loop, audio=clips[0])["embedding"] == expected
        (clips[0].parent.parent / "out.wav").write_bytes(clips[0].read_bytes())
        with pytest.raises(InputError, match="outside root_path"):
            run(embedder, in_loop=in_loop, audio="../out.wav")


@pytest.mark.parametrize("in_loop", [False, True], ids=["run", "run_async"])
class TestDocumentEmbedder:
    def test_mixed_lists(self, made, core, clips, in_loop):
        """Texts, paths and blobs, in order, with the core's vectors, ids kept."""
        documents = [
            Document(content="a text", meta={"file_path": "notes/a.txt"}),
            Document(meta={"file_path": str(clips[0])}),
            Document(blob=ByteStream(clips[1].read_bytes(), mime_type="audio/wav")),
            Document(content="a transcript", meta={"file_path": "2.wav", "mime_type": "audio/wav"}),
            Document(meta={"file_path": "3.wav", "start_seconds": 0.1, "end_seconds": 0.5}),
        ]
        items = ["a text", *(AudioClip(clip) for clip in clips[:3])]
        items.append(AudioClip(clips[3], start_seconds=0.1, end_seconds=0.5))
        before = copy.deepcopy(documents)
        found = run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=documents)["documents"]
        assert [document.embedding for document in found] == core.encode_document(items).tolist()
        assert [document.id for document in found] == [document.id for document in documents]
        assert [document.content for document in found] == [document.content for document in documents]
        assert documents == before
        assert all(type(value) is float for value in found[1].embedding)

    def test_an_empty_list_loads_nothing(self, made, in_loop):
        """And comes back."""
        assert run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=[]) == {"documents": []}
        assert fake_checkpoints.loads == []

    @pytest.mark.parametrize(
        "wrong", ["text", [1, 2], [Document(content="x"), "y"], Document(content="x"), None], ids=str
    )
    def test_what_are_no_documents(self, made, in_loop, wrong):
        """Also where only a later one is wrong."""
        with pytest.raises(TypeError, match="ALM2VecDocumentEmbedder expects a list of Documents as input"):
            run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=wrong)

    def test_metadata(self, made, core, in_loop):
        """Falsy values are kept, None and missing keys are not."""
        embedder = made(
            ALM2VecDocumentEmbedder, meta_fields_to_embed=["n", "flag", "none", "away"], embedding_separator=" | ",
            prefix="<", suffix=">",
        )  # fmt: skip
        documents = [
            Document(content="a", meta={"n": 0, "flag": False, "none": None}),
            Document(meta={"n": 7}),
        ]
        found = run(embedder, in_loop=in_loop, documents=documents)["documents"]
        assert [one.embedding for one in found] == core.encode_document(["<0 | False | a>", "<7 | >"]).tolist()

    def test_how_a_vector_came_about(self, made, clips, fake, in_loop):
        """In flat keys, which replace those of an earlier run; what is not so is not said."""
        embedder = made(ALM2VecDocumentEmbedder, instruction="own", document_question="who?", task="query")
        first = Document(meta={"file_path": str(clips[0]), "mine": 1})
        found = run(embedder, in_loop=in_loop, documents=[first, Document(content="a")])["documents"]
        said = {"alm2vec_model": str(fake), "alm2vec_task": "query", "alm2vec_instruction": "own"}
        assert found[0].meta == {"file_path": str(clips[0]), "mine": 1, "alm2vec_kind": "audio+text",
                                 "alm2vec_question": "who?"} | said  # fmt: skip
        assert found[1].meta == {"alm2vec_kind": "text"} | said
        again = run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=found, instruction="call")["documents"]
        assert again[0].meta == {"file_path": str(clips[0]), "mine": 1, "alm2vec_kind": "audio",
                                 "alm2vec_model": str(fake), "alm2vec_task": "document",
                                 "alm2vec_instruction": "call"}  # fmt: skip
        own = Document(content="a", meta={"alm2vec_note": "mine", "alm2vec_error": "of an earlier run"})
        kept = run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=[own])["documents"][0].meta
        assert (kept["alm2vec_note"], "alm2vec_error" in kept) == ("mine", False)
        plain = run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=[first])["documents"][0]
        assert plain.meta["alm2vec_instruction"] == DOC_INSTRUCTION

    def test_questions_and_instructions_of_a_run(self, made, core, clips, in_loop):
        """Over the component's own, and not for the next."""
        embedder = made(ALM2VecDocumentEmbedder, document_question="own?")
        documents, clip = [Document(meta={"file_path": "0.wav"})], AudioClip(clips[0])
        for given, item, instruction in (
            ({"document_question": "call?", "instruction": "i"}, AudioText("call?", clip), "i"),
            ({"document_question": ""}, AudioText("own?", clip), None),
        ):
            found = run(embedder, in_loop=in_loop, documents=documents, **given)["documents"][0]
            assert found.embedding == core.encode_document(item, instruction=instruction).tolist()

    def test_a_failure_names_its_document(self, made, clips, in_loop):
        """By place and id."""
        bad = Document(id="the-bad", meta={"file_path": "none.wav"})
        for documents in ([Document(content="a"), bad], [Document(content="a"), Document(id="the-bad")]):
            with pytest.raises(InputError, match="item 1, document the-bad"):
                run(made(ALM2VecDocumentEmbedder), in_loop=in_loop, documents=documents)

    def test_failures_can_be_passed_over(self, made, core, clips, in_loop, caplog):
        """They keep their place without an embedding, and say why; the others have theirs."""
        embedder = made(ALM2VecDocumentEmbedder, raise_on_failure=False)
        documents = [
            Document(id="1", content=" ", embedding=[0.5]),
            Document(id="2", meta={"file_path": "none.wav"}),
            Document(id="3", meta={"file_path": "https://example.org/a.wav"}),
            Document(id="4", content="good"),
        ]
        with caplog.at_level(logging.WARNING):
            found = run(embedder, in_loop=in_loop, documents=documents)["documents"]
        assert [document.id for document in found] == ["1", "2", "3", "4"]
        assert [document.embedding for document in found] == [
            None, None, None, core.encode_document("good").tolist()
        ]  # fmt: skip
        assert "neither text nor audio" in found[0].meta["alm2vec_error"]
        assert "No such file" in found[1].meta["alm2vec_error"]
        assert "download" in found[2].meta["alm2vec_error"]
        assert "alm2vec_error" not in found[3].meta
        assert sum("Not embedded: item" in record.getMessage() for record in caplog.records) == 3
        found = run(embedder, in_loop=in_loop, documents=documents[:3])["documents"]
        assert [document.embedding for document in found] == [None, None, None]
