"""ALM2Vec as a model of sentence-transformers."""

import copy
import gc
import pickle

import numpy as np
import pytest
import soundfile
import torch
from sentence_transformers import SentenceTransformer

from alm2vec_integrations import (
    DOC_INSTRUCTION,
    QUERY_INSTRUCTION,
    QUESTIONS,
    ALM2VecWarning,
    AudioAccessError,
    AudioClip,
    AudioError,
    AudioText,
    InputError,
)
from alm2vec_integrations.sentence_transformers import PROMPTS, ALM2VecModule, export, load

INSTRUCTIONS = [None, "Represent the audio by the background noise.", "Represent the audio by the main sound."]


@pytest.fixture(scope="module")
def pointer(tmp_path_factory):
    """The same, by the library alone."""
    folder = export("alm2vec-tiny", tmp_path_factory.mktemp("pointer"))
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def auto(model):
    """One that takes strings by the library's rule."""
    return load("alm2vec-tiny", device="cpu", strings="auto")


@pytest.fixture
def samples(wav):
    return soundfile.read(wav, dtype="float32")[0]


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


class TestSameVectors:
    """The same item alone gives the same bits as the core, through `load` and through a pointer folder."""

    @pytest.mark.parametrize("instruction", INSTRUCTIONS)
    @pytest.mark.parametrize("task", ["query", "document"])
    def test_alone(self, model, pointer, tiny, wav, task, instruction):
        for given, item in (
            ("a dog barking", "a dog barking"),
            ({"audio": str(wav)}, AudioClip(wav)),
            ({"audio": str(wav), "text": "What is heard?"}, AudioText("What is heard?", AudioClip(wav))),
        ):
            expected = tiny.encode(item, task=task, instruction=instruction)
            for door in (model, pointer):
                encode = door.encode_query if task == "query" else door.encode_document
                assert same(encode(given, prompt=instruction), expected)
                assert same(encode(given, instruction=instruction), expected)
                assert encode(given, prompt=instruction).dtype == np.float32
        assert not same(tiny.encode("a", task="query"), tiny.encode("a", task="document"))

    def test_in_lists(self, model, tiny, clips):
        """Mixed kinds, in their order, in batches of the library's and of ours."""
        items = [text for i, clip in enumerate(clips) for text in (f"text {i} " * (i + 1), AudioClip(clip))]
        expected = tiny.encode_document(items)
        assert np.abs(model.encode(items, batch_size=3) - expected).max() < 1e-5

    def test_two_models_share_one(self, model, tiny):
        """Nothing is loaded twice."""
        assert load("alm2vec-tiny", device="cpu")[0].model is model[0].model is tiny.module


class TestInputs:
    def test_every_form_of_audio(self, model, tiny, wav, samples):
        """Paths, arrays, rows of datasets, clips; by themselves and under "audio"."""
        expected = tiny.encode_document(AudioClip(wav))
        at_rate = {"array": samples, "sampling_rate": 16_000}
        forms = [
            wav, AudioClip(wav), samples, torch.from_numpy(samples), at_rate,
            at_rate | {"array": torch.tensor(samples)},
            at_rate | {"path": "a.wav"}, at_rate | {"array": samples.tolist()}, {"path": str(wav), "bytes": None},
            {"path": None, "bytes": wav.read_bytes()}, Decoder(samples, 16_000),
        ]  # fmt: skip
        for form in forms:
            assert np.abs(model.encode(form) - expected).max() < 1e-6, type(form)
            assert np.abs(model.encode({"audio": form}) - expected).max() < 1e-6, type(form)
        assert np.abs(model.encode(forms) - expected).max() < 1e-5

    def test_lists_of_samples(self, model, samples):
        """As datasets have them that are not formatted: whole numbers are 16-bit samples, and None is not there."""
        whole = (samples * 32767).astype(np.int16)
        expected = model.encode({"array": whole, "sampling_rate": 16_000})
        assert same(model.encode({"array": whole.tolist(), "sampling_rate": 16_000}), expected)
        row = {"audio": {"array": whole.tolist(), "sampling_rate": 16_000, "path": None}, "text": None}
        assert same(model.encode(row), expected)
        with pytest.raises(InputError, match="16-bit samples"):
            model.encode({"array": [10**6, 3], "sampling_rate": 16_000})

    def test_rates_differ_from_item_to_item(self, model, tiny, samples):
        fast = np.repeat(samples, 3)
        forms = [{"audio": {"array": fast, "sampling_rate": 48_000}}, {"array": samples, "sampling_rate": 8_000}]
        clips = [AudioClip(fast, sampling_rate=48_000), AudioClip(samples, sampling_rate=8_000)]
        assert np.abs(model.encode(forms) - tiny.encode_document(clips)).max() < 1e-5

    def test_channels(self, model, tiny, samples):
        """A two-dimensional array is one clip, whichever axis holds the channels."""
        both = np.stack([samples, 0.5 * samples])
        expected = tiny.encode_document(AudioClip(both, sampling_rate=16_000, channels="first"))
        for form in (both, both.T, torch.from_numpy(both), {"array": both.T, "sampling_rate": 16_000}):
            assert same(model.encode(form), expected)
        with pytest.raises(InputError, match=r"shape \(64, 60\) does not say which axis"):
            model.encode(np.zeros((64, 60), np.float32))

    def test_chat_messages(self, model, tiny, wav):
        """A system message is the instruction of its input alone."""
        said = [
            {"role": "system", "content": "By sound."},
            {"role": "user", "content": [{"type": "audio", "audio": str(wav)}, {"type": "text", "text": "What?"}]},
        ]
        item = AudioText("What?", AudioClip(wav))
        assert same(model.encode(said), tiny.encode_document(item, instruction="By sound."))
        assert same(model.encode_query(said), tiny.encode_query(item, instruction="By sound."))
        plain = [{"role": "user", "content": "a dog"}]
        assert same(model.encode(plain), tiny.encode_document("a dog"))
        assert same(model.encode(plain[0]), tiny.encode_document("a dog"))
        together = model.encode([said, plain, "a dog", {"audio": wav}], prompt="By place.")
        assert np.abs(together[0] - tiny.encode_document(item, instruction="By sound.")).max() < 1e-5
        expected = tiny.encode_document(["a dog", "a dog", AudioClip(wav)], instruction="By place.")
        assert np.abs(together[1:] - expected).max() < 1e-5

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            (("a", "b"), "pairs to be scored are for a cross-encoder"),
            ({"image": "x.png"}, r"got the keys \['image'\]"),
            ({"audio": "http://example.org/a.wav"}, "URLs are not opened: download the file first"),
            ({"audio": ["a.wav", "b.wav"]}, "pass them one by one"),
            ({"audio": "missing.wav"}, "missing.wav"),
            ({"text": 3}, '"text" must be a str, got int'),
            ({"array": [[1.0], [2.0, 3.0]], "sampling_rate": 8}, "not of numbers"),
            ({"array": np.zeros(9, np.float32)}, 'needs a "sampling_rate"'),
            ("", "the text is empty"),
            (3.5, "got float"),
            (None, "got NoneType"),
            ([{"role": "assistant", "content": "x"}], "got 'assistant'"),
            ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "got 'image'"),
            ([{"role": "user", "content": [{"type": "audio"}]}], 'under "audio" or "path"'),
            ([{"role": "user", "content": 3}], "got int"),
            ({"role": "user", "content": "a", "audio": "a.wav"}, r"got .'audio'. beside them"),
            ([{"role": "user", "content": [{"type": "text", "text": "a", "audio": "x"}]}], r"has no .'audio'."),
        ],
    )
    def test_what_is_none_of_these(self, model, wrong, says):
        """Is named, in one family of errors; not by a place, which would be one among what the library has sorted."""
        with pytest.raises(InputError, match=says) as caught:
            model.encode_query(["a", wrong, "b"])
        assert caught.value.index is None
        assert caught.value.source
        assert str(caught.value).startswith(f"{caught.value.source}: ")

    def test_what_cannot_be_decoded(self, model, wav):
        """The same of what is only found while it is embedded, however the library sorts and cuts it."""
        broken = wav.with_name("broken.wav")
        broken.write_bytes(b"RIFF")
        with pytest.raises(AudioError, match=r"broken\.wav: is not audio") as caught:
            model.encode(["a long text for which there is no place but the first", *"abc", broken], batch_size=2)
        assert caught.value.index is None

    def test_references_need_roots(self, model, tmp_path, wav):
        """A stored string does not open files by itself."""
        reference = AudioClip(wav).reference()
        with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
            model.encode({"audio": reference})
        rooted = load("alm2vec-tiny", device="cpu", allowed_audio_roots=[tmp_path])
        assert same(rooted.encode({"audio": reference}), model.encode(AudioClip(wav)))


class TestStrings:
    def test_a_string_is_text(self, model, tiny, wav):
        """Also one that is the path of a recording, or looks like one."""
        for text in (str(wav), "missing.wav", "http://example.org/a.mp3"):
            assert same(model.encode(text), tiny.encode_document(text))

    def test_by_the_librarys_rule(self, auto, tiny, wav):
        assert same(auto.encode(str(wav)), tiny.encode_document(AudioClip(wav)))
        for text in ("a dog", "listen to this.wav", "no suffix", "a/b"):
            assert same(auto.encode(text), tiny.encode_document(text))
        assert same(auto.encode({"text": str(wav)}), tiny.encode_document(str(wav)))

    @pytest.mark.parametrize(
        "text",
        [
            "missing.wav", "missing.m4a", "file:///tmp/a.wav", "s3://bucket/a.flac", "s3://bucket/my clip.wav",
            "https://e.org/a.wav?token=1", "https://e.org/a.flac#t=1", "calls/my recording.wav", "missing.wav\n",
            "call.amr", "book.m4b",
        ],
    )  # fmt: skip
    def test_what_looks_like_audio_and_is_none(self, auto, text):
        """The library would embed the path's letters."""
        with pytest.raises(InputError, match=r"there is no such file|URLs are not opened"):
            auto.encode(["a", text])

    def test_a_suffix_that_the_library_does_not_know(self, auto, tiny, wav):
        """It would take this one for text."""
        wav.rename(path := wav.with_suffix(".aiff"))
        assert same(auto.encode(str(path)), tiny.encode_document(AudioClip(path)))

    def test_no_third_way(self):
        with pytest.raises(InputError, match="strings must be one of"):
            load("alm2vec-tiny", strings="audio")


class TestPrompts:
    """Prompts are instructions, and say which task is meant where nothing else does."""

    def test_names(self, model, tiny):
        assert model.prompts == PROMPTS
        assert same(model.encode("x", prompt_name="query"), tiny.encode_query("x"))
        assert same(model.encode("x", prompt_name="document"), tiny.encode_document("x"))
        assert same(model.encode("x"), tiny.encode_document("x"))
        assert same(model.encode("x", prompt=QUERY_INSTRUCTION), tiny.encode_query("x"))
        assert same(model.encode("x", prompt=DOC_INSTRUCTION), tiny.encode_document("x"))

    @pytest.mark.parametrize("name", [*QUESTIONS, "question"])
    def test_the_published_ones(self, model, tiny, wav, name):
        expected = tiny.encode_query(AudioClip(wav), instruction=QUESTIONS.get(name))
        assert same(model.encode(AudioClip(wav), prompt_name=name), expected)

    def test_of_ones_own(self, tiny):
        """Named at construction; the two tasks' own instructions as everywhere."""
        model = load("alm2vec-tiny", device="cpu", prompts={"mine": "By mood."}, document_instruction="As a text.")
        assert same(model.encode("x", prompt_name="mine"), tiny.encode_query("x", instruction="By mood."))
        assert same(model.encode_document("x"), tiny.encode_document("x", instruction="As a text."))
        assert same(
            model.encode("x", prompt="By mood.", task="document"), tiny.encode_document("x", instruction="By mood.")
        )

    def test_one_by_default(self, tiny, wav):
        """For `encode` without a prompt."""
        model = load("alm2vec-tiny", device="cpu", default_prompt_name="background")
        expected = tiny.encode_query(AudioClip(wav), instruction=QUESTIONS["background"])
        assert same(model.encode(AudioClip(wav)), expected)
        with pytest.raises(ValueError, match="nonsense"):
            load("alm2vec-tiny", device="cpu", default_prompt_name="nonsense")

    def test_replaced_ones_are_seen(self, tiny):
        """The model's own dict may be another one later."""
        model = load("alm2vec-tiny", device="cpu")
        model.prompts = {"query": "By mood.", "document": "As a text."}
        assert same(model.encode("x", prompt_name="query"), tiny.encode_query("x", instruction="By mood."))
        again = pickle.loads(pickle.dumps(model[0]))
        assert again.preprocess(["x"], prompt="By mood.")["task"] == "query"

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_have_prompts_of_their_own(self, tiny, copied):
        """Which change for them alone."""
        model = load("alm2vec-tiny", device="cpu")
        twin = copied(model)
        twin.prompts["mine"] = model.prompts["yours"] = "By mood."
        assert same(twin.encode("x", prompt_name="mine"), tiny.encode_query("x", instruction="By mood."))
        assert same(model.encode("x", prompt_name="yours"), tiny.encode_query("x", instruction="By mood."))
        del model.prompts["yours"]
        assert same(model.encode("x", prompt="By mood."), tiny.encode_document("x", instruction="By mood."))

    def test_replaced_ones_of_a_copy(self, tiny):
        twin = copy.deepcopy(load("alm2vec-tiny", device="cpu"))
        twin.prompts = {"query": "By mood.", "document": "As a text."}
        assert same(twin.encode("x", prompt_name="query"), tiny.encode_query("x", instruction="By mood."))

    def test_a_module_in_two_models(self, tiny):
        """Knows the prompts of both, as long as both are there."""
        model = load("alm2vec-tiny", device="cpu")
        other = SentenceTransformer(modules=[model[0]], device="cpu", prompts={"mood": "By mood."})
        assert same(other.encode("x", prompt_name="mood"), tiny.encode_query("x", instruction="By mood."))
        assert same(model.encode("x", prompt_name="query"), tiny.encode_query("x"))
        del other
        gc.collect()
        assert same(model.encode("x", prompt_name="query"), tiny.encode_query("x"))
        assert same(model.encode("x", prompt="By mood."), tiny.encode_document("x", instruction="By mood."))

    def test_one_text_by_several_names(self, tiny):
        """Which of them was meant is not known, and that is said."""
        model = load("alm2vec-tiny", device="cpu", prompts={"query": "Same.", "document": "Same."})
        with pytest.warns(
            ALM2VecWarning, match="has several names, .'document', 'query'., and is taken for a document's"
        ):
            found = model.encode("x", prompt_name="query")
        assert same(found, tiny.encode_document("x", instruction="Same."))
        only = load("alm2vec-tiny", device="cpu", prompts={"query": ""})
        assert same(only.encode("x", prompt_name="query"), tiny.encode_query("x"))

    @pytest.mark.parametrize("wrong", [["a"], {"a": 3}])
    def test_prompts_that_are_none(self, wrong, tmp_path):
        for make in (load, lambda model, **given: export(model, tmp_path / "p", **given)):
            with pytest.raises(InputError, match="prompts"):
                make("alm2vec-tiny", prompts=wrong)

    def test_none_and_empty_are_the_default(self, model, tiny):
        for prompt in (None, ""):
            assert same(model.encode_query("x", prompt=prompt), tiny.encode_query("x"))
            assert same(model.encode_document("x", prompt=prompt), tiny.encode_document("x"))

    def test_an_instruction_comes_before_the_prompt(self, model, tiny):
        expected = tiny.encode_query("x", instruction="By mood.")
        assert same(model.encode_query("x", instruction="By mood."), expected)

    @pytest.mark.parametrize("wrong", [{"task": "classification"}, {"instruction": ["a", "b"]}, {"prompt": 3}])
    def test_what_cannot_be_one(self, model, wrong):
        with pytest.raises(InputError):
            model.encode(["a", "b"], **wrong)

    def test_what_other_models_take(self, model):
        """Is refused and not ignored."""
        with pytest.raises(InputError, match="processing_kwargs"):
            model.encode("a", processing_kwargs={"text": {"max_length": 3}})
        with pytest.raises(ValueError, match="additional keyword arguments"):
            model.encode("a", nonsense=1)


class TestSurface:
    """What tools ask of any model."""

    def test_properties(self, model):
        assert model.device == torch.device("cpu")
        assert model.dtype == torch.float32
        assert model.config.model_type == "alm2vec_tiny"
        assert model.get_embedding_dimension() == 160
        assert model.max_seq_length is None
        assert model.supports("audio")
        assert model.supports(("audio", "text"))
        assert model.tokenizer("a dog")["input_ids"]
        with pytest.warns(ALM2VecWarning, match="max_seq_length=512 has no effect"):
            model.max_seq_length = 512

    def test_results(self, model, tiny):
        texts = ["a dog", "rain and a longer text"]
        expected = tiny.encode_document(texts)
        assert np.allclose(model.encode(texts), expected, atol=1e-6)
        assert isinstance(model.encode(texts, convert_to_tensor=True), torch.Tensor)
        assert isinstance(model.encode(texts, convert_to_numpy=False), list)
        assert model.encode(texts, truncate_dim=32).shape == (2, 32)
        assert model.encode(texts, precision="binary").shape == (2, 20)
        assert model.encode(texts, precision="int8").dtype == np.int8
        assert np.allclose(np.linalg.norm(model.encode(texts), axis=1), 1, atol=1e-6)
        assert model.encode([]).shape == (0,)
        assert set(model.encode(texts, output_value=None)[0]) >= {"sentence_embedding"}
        assert np.allclose(model.similarity(expected, expected), expected @ expected.T, atol=1e-6)

    def test_places_are_not_taken_for_tokens(self, model):
        """Losses that ask another model decode what the library calls input_ids."""
        with pytest.raises(OverflowError):
            model.tokenizer.batch_decode(model.preprocess(["a dog", "rain"])["input_ids"])

    def test_what_callers_do_to_torch(self, model, tiny):
        """Neither autocast nor compilation are meant for this model."""
        with torch.autocast("cpu", torch.bfloat16):
            assert same(model.encode("a"), tiny.encode_document("a"))
        compiled = load("alm2vec-tiny", device="cpu")
        compiled.compile(backend="eager")
        assert same(compiled.encode("a"), tiny.encode_document("a"))

    def test_a_progress_bar(self, model, capsys):
        model.encode(["a", "b"], batch_size=1, show_progress_bar=True)
        assert "Batches" in capsys.readouterr().err

    def test_it_is_not_cast_afterwards(self, model):
        for cast in (model.half, model.bfloat16, lambda: model.to(torch.float64)):
            with pytest.raises(InputError, match="are cast, and checked, while they are loaded"):
                cast()
        with pytest.raises(InputError, match="meta device"):
            model.to("meta")

    def test_another_dtype(self):
        """By the encoder's argument, and by the library's."""
        low = load("alm2vec-tiny", device="cpu", dtype="bfloat16")
        assert low.encode("a").dtype == np.float32
        assert torch.bfloat16 in {p.dtype for p in low[0].model.parameters()}

    def test_copies_and_pickles(self, model, tiny):
        """Share or load the checkpoint; they hold no weights."""
        stored = pickle.dumps(model[0])
        assert len(stored) < 20_000
        again = SentenceTransformer(modules=[pickle.loads(stored)], device="cpu", prompts=model.prompts)
        assert same(again.encode("a"), tiny.encode_document("a"))

    def test_no_token_in_pickles(self):
        module = ALM2VecModule("alm2vec-tiny", token="hf_secret")
        assert b"hf_secret" not in pickle.dumps(module)

    def test_a_pool_of_two_processes(self, model, tiny, wav):
        items = [AudioClip(wav), "a", {"audio": str(wav), "text": "What?"}, "b"]
        expected = tiny.encode_document([AudioClip(wav), "a", AudioText("What?", AudioClip(wav)), "b"])
        pool = model.start_multi_process_pool(["cpu", "cpu"])
        try:
            found = model.encode(items, pool=pool, chunk_size=1)
        finally:
            model.stop_multi_process_pool(pool)
        assert np.abs(found - expected).max() < 1e-5
        assert same(model.encode("a"), tiny.encode_document("a"))


class Decoder:
    """torchcodec's `AudioDecoder`, by what it can do."""

    def __init__(self, samples, rate):
        self._samples, self._rate = samples, rate
        self.metadata = type("Metadata", (), {
            "sample_rate": rate, "num_channels": 1, "duration_seconds": len(samples) / rate,
            "duration_seconds_from_header": len(samples) / rate, "begin_stream_seconds": 0.0,
        })()  # fmt: skip

    def get_samples_played_in_range(self, start_seconds=0.0, stop_seconds=None):
        stop = None if stop_seconds is None else round(stop_seconds * self._rate)
        data = torch.from_numpy(self._samples[round(start_seconds * self._rate) : stop])[None]
        return type("Samples", (), {"data": data, "sample_rate": self._rate, "pts_seconds": start_seconds})()
