"""What goes wrong without a word behind sentence-transformers, each shown to go wrong in a naive wrapper."""

import os

import naive_sentence_transformers
import numpy as np
import pytest
import soundfile
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Normalize

from alm2vec_integrations import ALM2VecWarning, AudioClip, AudioText, InputError
from alm2vec_integrations.sentence_transformers import load

INSTRUCTION = "Represent the audio by the background noise."


@pytest.fixture(scope="module")
def ours(tiny):
    return load("alm2vec-tiny", device="cpu")


@pytest.fixture(scope="module")
def auto(tiny):
    return load("alm2vec-tiny", device="cpu", strings="auto")


@pytest.fixture(scope="module")
def naive():
    return naive_sentence_transformers.load()


@pytest.fixture(scope="module")
def named(library):
    """The sound library, by name."""
    return {path.stem: {"audio": str(path)} for path in library}


def equal(one, other):
    assert np.abs(np.asarray(one) - other).max() < 1e-5


def prompts_are_not_put_before_texts(model, tiny, wav):
    equal(model.encode_query("a dog", prompt=INSTRUCTION), tiny.encode_query("a dog", instruction=INSTRUCTION))


def prompts_reach_audio(model, tiny, wav):
    equal(model.encode_query([{"audio": str(wav)}], prompt=INSTRUCTION)[0],
          tiny.encode_query(AudioClip(wav), instruction=INSTRUCTION))  # fmt: skip


def a_prompts_name_says_the_task(model, tiny, wav):
    model.prompts.setdefault("query", "")
    equal(model.encode("a dog", prompt_name="query"), tiny.encode_query("a dog"))


def an_instruction_may_be_given_by_call(model, tiny, wav):
    equal(model.encode("a dog", instruction=INSTRUCTION), tiny.encode_document("a dog", instruction=INSTRUCTION))


def order_is_kept_among_kinds(model, tiny, wav):
    found = model.encode([{"audio": str(wav)}, "a dog", {"audio": str(wav)}])
    equal(found, np.stack([tiny.encode_document(one) for one in (AudioClip(wav), "a dog", AudioClip(wav))]))


def a_clip_and_its_text_are_one_item(model, tiny, wav):
    equal(model.encode({"audio": str(wav), "text": "What?"}), tiny.encode_document(AudioText("What?", AudioClip(wav))))


def every_item_has_its_own_rate(model, tiny, wav):
    samples = np.repeat(soundfile.read(wav, dtype="float32")[0], 3)
    found = model.encode({"array": samples, "sampling_rate": 48_000})
    equal(found, tiny.encode_document(AudioClip(samples, sampling_rate=48_000)))


def an_array_of_two_axes_is_one_clip(model, tiny, wav):
    mono = soundfile.read(wav, dtype="float32")[0]
    equal(
        model.encode({"array": np.stack([mono, mono]), "sampling_rate": 16_000}), tiny.encode_document(AudioClip(wav))
    )


def rows_of_datasets_are_audio(model, tiny, wav):
    equal(model.encode({"path": None, "bytes": wav.read_bytes()}), tiny.encode_document(AudioClip(wav)))


def a_conversation_is_one_item(model, tiny, wav):
    said = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "a dog"}]
    equal(model.encode(said), tiny.encode_document("a dog", instruction=INSTRUCTION))


def a_text_is_text_whatever_lies_on_the_disk(model, tiny, wav):
    equal(model.encode(str(wav)), tiny.encode_document(str(wav)))


def urls_are_refused(model, tiny, wav):
    with pytest.raises(InputError, match="download"):
        model.encode({"audio": "http://example.org/a.wav"})


class TypeErrorOnce(os.PathLike):
    """A path whose first reading fails as a wrong type does."""

    def __init__(self, path):
        self._path, self._read = path, False

    def __fspath__(self):
        if not self._read:
            self._read = True
            raise TypeError("not this time")
        return str(self._path)


def a_type_error_is_not_taken_for_a_module_without_prompts(model, tiny, wav):
    """The library would try again without the prompt, and go on."""
    with pytest.raises(InputError, match="not this time"):
        model.encode_query([{"audio": TypeErrorOnce(wav)}], prompt=INSTRUCTION)


def gradient_caching_gives_the_same_loss(model, tiny, wav):
    columns = [[f"text {i}" for i in range(8)], [f"answer {i} " * i + "." for i in range(8)]]
    values = []
    for loss in (
        losses.MultipleNegativesRankingLoss(model),
        losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3),
    ):
        with torch.no_grad():
            values.append(float(loss([model.preprocess(column) for column in columns], None)))
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def the_trainer_finds_the_columns(model, tiny, wav):
    assert any(name.endswith("input_ids") for name in model.preprocess(["a dog"]))


def the_model_stays_in_evaluation_mode(model, tiny, wav):
    model.train()
    try:
        assert not any(part.training for part in model[0].model.modules())
    finally:
        model.eval()


def training_that_cannot_work_is_refused(model, tiny, wav):
    model.train()
    try:
        with pytest.raises(InputError, match="weights cannot be trained here"):
            model(model.preprocess(["a dog"]))
    finally:
        model.eval()


def the_width_is_known(model, tiny, wav):
    assert model.get_embedding_dimension() == tiny.dim


def a_limit_without_effect_is_remarked_on(model, tiny, wav):
    with pytest.warns(ALM2VecWarning, match="no effect"):
        model.max_seq_length = 256


def saving_leaves_config_json_alone(model, tiny, wav):
    model.save_pretrained(str(wav.parent / "saved"))
    assert not (wav.parent / "saved" / "config.json").exists()


# With what goes wrong in the naive wrapper: most often, the vectors, without a word.
TRAPS = {
    prompts_are_not_put_before_texts: AssertionError,
    prompts_reach_audio: AssertionError,
    a_prompts_name_says_the_task: AssertionError,
    an_instruction_may_be_given_by_call: ValueError,  # by the library, which does not know that it may
    order_is_kept_among_kinds: AssertionError,
    a_clip_and_its_text_are_one_item: AssertionError,
    every_item_has_its_own_rate: AssertionError,
    an_array_of_two_axes_is_one_clip: AssertionError,
    rows_of_datasets_are_audio: AssertionError,
    a_conversation_is_one_item: AssertionError,
    a_text_is_text_whatever_lies_on_the_disk: AssertionError,
    urls_are_refused: FileNotFoundError,  # of a model whose code opens files; another's would fetch it
    a_type_error_is_not_taken_for_a_module_without_prompts: pytest.fail.Exception,
    gradient_caching_gives_the_same_loss: AssertionError,
    the_trainer_finds_the_columns: AssertionError,
    the_model_stays_in_evaluation_mode: AssertionError,
    training_that_cannot_work_is_refused: pytest.fail.Exception,
    the_width_is_known: AssertionError,
    a_limit_without_effect_is_remarked_on: pytest.fail.Exception,
    saving_leaves_config_json_alone: AssertionError,
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_ours_falls_into_none(trap, ours, tiny, wav):
    trap(ours, tiny, wav)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_naive_wrapper_falls_into_each(trap, naive, tiny, wav):
    """So the check can fail, and for its own reason."""
    with pytest.raises(TRAPS[trap]) as caught:
        trap(naive, tiny, wav)
    assert type(caught.value) is TRAPS[trap]


class TestMistypedPaths:
    """The library's own rule takes them for text, as any wrapper does that follows it."""

    @pytest.mark.parametrize("path", ["missing.wav", "file:///a.wav", "s3://bucket/a.flac", "https://e.org/a.wav"])
    def test_ours(self, auto, path):
        with pytest.raises(InputError):
            auto.encode(path)

    def test_a_naive_wrapper(self, naive):
        assert naive.encode("missing.wav").shape == (160,)


class TestWhatIsLeftOut:
    """Parts of the module that look as if they could be otherwise."""

    def test_without_messages_among_the_modalities(self, ours, wav):
        """The library refuses every batch of mixed kinds."""
        mixed = ["a dog", {"audio": str(wav)}]
        assert ours.encode(mixed).shape == (2, 160)

        class Without(naive_sentence_transformers.NaiveModule):
            modalities = ("text", "audio", ("audio", "text"))

        with pytest.raises(ValueError, match="odalit"):
            SentenceTransformer(modules=[Without()], device="cpu").encode(mixed)

    def test_normalised_twice(self, ours, tiny):
        """A `Normalize` behind it gives other bits than the core's."""
        texts = [f"text {i}" for i in range(50)]
        again = SentenceTransformer(modules=[ours[0], Normalize()], device="cpu", prompts=ours.prompts)
        expected = [tiny.encode_document(text) for text in texts]
        assert all(np.array_equal(ours.encode(text), one) for text, one in zip(texts, expected, strict=True))
        assert not all(np.array_equal(again.encode(text), one) for text, one in zip(texts, expected, strict=True))


class TestTraining:
    @pytest.fixture
    def trainable(self, tiny):
        from sentence_transformers.sentence_transformer.modules import Dense

        model = load("alm2vec-tiny", device="cpu")
        model[0].requires_grad_(False)
        model.append(Dense(160, 16, bias=False))
        return model

    def test_a_module_behind_it_learns(self, trainable, tiny, tmp_path, clips, caplog):
        """With the library's trainer, on texts and audio, the best model put back at the end."""
        datasets = pytest.importorskip("datasets")
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

        before = {name: value.clone() for name, value in trainable[0].model.state_dict().items()}
        weight = trainable[1].linear.weight.detach().clone()
        rows = datasets.Dataset.from_dict({
            "anchor": [f"noise number {i}" for i in range(8)],
            "positive": [{"path": str(clip), "bytes": None} for clip in clips[:8]],
        })  # fmt: skip
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "out"), per_device_train_batch_size=4, num_train_epochs=4, learning_rate=1e-2,
            report_to=[], use_cpu=True, logging_steps=1, eval_strategy="steps", eval_steps=4, save_steps=4,
            load_best_model_at_end=True, disable_tqdm=True,
        )  # fmt: skip
        loss = losses.MultipleNegativesRankingLoss(trainable)
        trainer = SentenceTransformerTrainer(
            model=trainable, args=arguments, train_dataset=rows, eval_dataset=rows, loss=loss
        )
        trainer.train()
        found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert min(found[-2:]) < found[0]
        assert not torch.equal(trainable[1].linear.weight, weight)
        # Batch norm's statistics too.
        assert all(torch.equal(before[name], value) for name, value in trainable[0].model.state_dict().items())
        assert "Could not load the best model" not in caplog.text
        trainable.save_pretrained(str(tmp_path / "saved"))
        from sentence_transformers import SentenceTransformer

        again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
        assert np.array_equal(again.encode("a dog"), trainable.encode("a dog"))
        assert again.get_embedding_dimension() == 16

    def test_with_nothing_to_train(self, tiny):
        """Frozen, and no module behind it."""
        model = load("alm2vec-tiny", device="cpu")
        model[0].requires_grad_(False)
        model.train()
        with pytest.raises(InputError, match="there is nothing to train: append a module"):
            model(model.preprocess(["a dog"]))
        with torch.no_grad():
            assert model(model.preprocess(["a dog"]))["sentence_embedding"].shape == (1, 160)

    def test_in_half_precision(self, trainable, tiny):
        """The trainer's bf16=True is for what is trained."""
        trainable.train()
        with torch.autocast("cpu", torch.bfloat16):
            trainable(trainable.preprocess(["a dog"]))["sentence_embedding"].sum().backward()
        assert trainable[1].linear.weight.grad.abs().sum() > 0

    def test_frozen_it_stays(self, trainable):
        """Also when the model is loaded anew, as on another device."""
        trainable[0]._modules.pop("model")
        trainable.encode("a dog")
        assert not any(parameter.requires_grad for parameter in trainable[0].parameters())


class TestEvaluators:
    """The library's evaluators on audio, far above chance."""

    def test_information_retrieval(self, ours, named):
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        queries = {
            "1": "a church bell over wind",
            "2": "a cat meowing over guitar music",
            "3": "a dog barking over rain",
        }
        right = {"1": {"church bell over wind"}, "2": {"cat over guitar"}, "3": {"dog over rain"}}
        found = InformationRetrievalEvaluator(queries, named, right, name="sounds", accuracy_at_k=[1], mrr_at_k=[3],
                                              ndcg_at_k=[3], precision_recall_at_k=[1], map_at_k=[3])(ours)  # fmt: skip
        assert found["sounds_cosine_accuracy@1"] == 1.0

    def test_triplet(self, ours, named):
        from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

        found = TripletEvaluator(
            anchors=["a dog", "rain", "a man speaking"],
            positives=[named["dog over rain"], named["knock over rain"], named["man over traffic"]],
            negatives=[named["knock over rain"], named["dog over piano"], named["woman over piano"]],
        )(ours)
        assert found["cosine_accuracy"] == 1.0

    def test_reranking(self, ours, named):
        from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator

        samples = [
            {"query": "a church bell over wind", "positive": [named["church bell over wind"]],
             "negative": [named["cat over guitar"], named["dog over rain"], named["man over traffic"]]},
            {"query": "a woman speaking over piano music", "positive": [named["woman over piano"]],
             "negative": [named["dog over piano"], named["man over traffic"], named["knock over rain"]]},
        ]  # fmt: skip
        found = RerankingEvaluator(samples)(ours)
        assert found["map"] == 1.0
