"""The bundled stand-in: the documented architecture, the card's calls, and nothing more."""

import json
import wave

import numpy as np
import pytest
import sounds
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from alm2vec_integrations import DOC_INSTRUCTION
from alm2vec_integrations.tiny import FOLDER
from alm2vec_integrations.tiny.writer import BUNDLED, CONTROL_TOKENS, FULL, Shape, build_on_meta, write_checkpoint

CARD = {"task": "query", "instruction": DOC_INSTRUCTION, "normalize": True, "device": "cpu"}


def load(folder):
    """As the model card does it, in float32."""
    name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    return AutoModel.from_pretrained(folder, trust_remote_code=True, **{name: torch.float32}).eval()


@pytest.fixture(scope="module")
def model():
    return load(FOLDER)


@pytest.fixture
def wavs(tmp_path):
    lengths = [0.3, 1.0, 5.0, 10.08, 12.0, 25.0]
    return [str(sounds.write(tmp_path / f"{s}.wav", sounds.noise(s, seed=i))) for i, s in enumerate(lengths)]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_shape_has_the_documented_parameter_counts():
    """Part by part, the numbers of MiDashengLM-7B without its language-model head."""
    model = build_on_meta(FULL)
    assert all(parameter.is_meta for parameter in model.parameters())
    embedding = count(model.decoder.get_input_embeddings())
    assert count(model.audio_encoder) == 630_333_568
    assert count(model.audio_projector) == 35_789_824
    assert count(model.decoder) - embedding == 6_525_621_760
    assert embedding == 544_997_376
    assert count(model) == 7_736_742_528


def test_audio_tokens_follow_the_documented_formula(model):
    """int(1 + n / 160) // 4 // 5: five a second."""
    for samples in (3_040, 3_200, 16_000, 160_000, 161_279, 161_280, 161_281, 200_000, 480_000):
        patches, counts = model.audio_encoder([torch.zeros(samples)])
        assert counts[0] // 5 == int(1 + samples / 160) // 4 // 5
        assert patches.shape[1] == counts[0]


def test_chunks_do_not_see_one_another(model):
    """What comes after 10.08 s does not change the patches before."""
    long = torch.from_numpy(sounds.noise(25.0))
    other = long.clone()
    other[190_000:] = 0  # the second chunk begins at 161,280
    patches = model.audio_encoder([long])[0]
    changed = model.audio_encoder([other])[0]
    torch.testing.assert_close(patches[:, :252], changed[:, :252])
    assert not torch.allclose(patches[:, 300:], changed[:, 300:])


def test_a_vector_does_not_depend_on_its_neighbours(model, wavs):
    """Lengths from 0.3 to 25 s in one batch, with and without text."""
    texts = ["what?", "who is it", "where is the dog that barks", "when", "why", "a"]
    for given in ({"audio": wavs}, {"audio": wavs, "text": texts}, {"text": texts}):
        together = model.encode(**given, **CARD)
        alone = torch.cat([model.encode(**{k: [v[i]] for k, v in given.items()}, **CARD) for i in range(len(wavs))])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(len(wavs)))


def test_everything_that_should_matter_matters(model, wavs):
    """Sound, text, instruction and task each move the vector."""
    base = {"audio": [wavs[1]], "text": ["what?"], **CARD}
    vector = model.encode(**base)
    for change in ({"audio": [wavs[2]]}, {"text": ["who?"]}, {"instruction": "other"}, {"task": "document"}):
        assert (vector - model.encode(**base | change)).abs().max() > 1e-3


def test_a_text_cannot_spell_a_control_token(model):
    """`<|end|>` in a user's text is characters."""
    ids = model._prompt("query", "x", 0, "<|audio|><|end|>")
    assert ids.count(model._vocabulary.token_to_id("<|audio|>")) == 0
    assert ids.count(model._vocabulary.token_to_id("<|end|>")) == 1


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"text": None},
        {"text": "a"},
        {"text": []},
        {"text": ["a", None]},
        {"text": ("a",)},
        {"audio": None},
        {"audio": [None]},
        {"audio": [np.zeros(16_000, np.float32)]},
        {"text": ["a"], "audio": None},
        {"text": ["a", "b"], "audio": ["a.wav"]},
        {"text": ["a"], "task": "passage"},
        {"text": ["a"], "instruction": None},
        {"text": ["a"], "instruction": ""},
        {"text": ["a"], "normalize": None},
        {"text": ["a"], "device": "cuda"},
        {"text": ["a"], "batch_size": 4},
        {"text": ["a"], "sampling_rate": 16_000},
    ],
    ids=str,
)
def test_calls_that_the_card_does_not_show_are_refused(model, call):
    """Unknown keywords, None in place of a list or inside one, arrays, and lists that do not pair."""
    with pytest.raises((TypeError, ValueError)):
        model.encode(**CARD | call)


@pytest.mark.parametrize("keyword", list(CARD))
def test_no_keyword_may_be_left_to_a_default(model, keyword):
    """The card says nothing of defaults."""
    with pytest.raises(TypeError, match=keyword):
        model.encode(text=["a"], **{k: v for k, v in CARD.items() if k != keyword})


def test_positional_arguments_are_refused(model):
    """The card passes keywords."""
    with pytest.raises(TypeError):
        model.encode(["a"], **CARD)


def test_only_16_khz_mono_pcm16_is_read(model, tmp_path):
    """And not less than one audio token of it."""
    for path in (
        sounds.write(tmp_path / "rate.wav", sounds.tone(1.0, rate=8_000), 8_000),
        sounds.write(tmp_path / "stereo.wav", np.stack([sounds.tone(1.0)] * 2, axis=1)),
        sounds.write(tmp_path / "wide.wav", sounds.tone(1.0), subtype="PCM_24"),
        sounds.write(tmp_path / "short.wav", sounds.tone(0.1)),
    ):
        with pytest.raises((ValueError, wave.Error)):
            model.encode(audio=[str(path)], **CARD)


def test_the_tokenizer_loads_as_the_card_loads_it():
    """Through transformers, from the folder."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
    ids = tokenizer("a dog", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "a dog"


def test_the_shipped_folder_is_of_the_writers_shape(tmp_path):
    """Same files, configuration, control tokens, and tensors by name, shape and dtype, within a wheel's size."""
    written = write_checkpoint(tmp_path / "again", BUNDLED, dtype=torch.float16)
    shipped = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert {path.name for path in written.iterdir()} == shipped - {"README.md"}
    for name in ("config.json", "tokenizer_config.json"):
        assert json.loads((written / name).read_text()) == json.loads((FOLDER / name).read_text())
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == BUNDLED.text_config["vocab_size"]
    assert [tokenizer.token_to_id(token) for token in CONTROL_TOKENS] == list(range(len(CONTROL_TOKENS)))
    one, two = load_file(written / "model.safetensors"), load_file(FOLDER / "model.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {k: (v.shape, v.dtype) for k, v in two.items()}
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 5_000_000


def test_shards_hold_what_one_file_holds(tmp_path):
    """Sharding is a matter of files: same seed, same vectors; another seed, others."""
    small = Shape(32, 1, 2, 64, {**BUNDLED.text_config, "num_hidden_layers": 1})
    whole = load(write_checkpoint(tmp_path / "whole", small, seed=3))
    sharded = load(write_checkpoint(tmp_path / "sharded", small, seed=3, max_shard_bytes=100_000))
    other = load(write_checkpoint(tmp_path / "other", small, seed=4))
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    expected = whole.encode(text=["a dog"], **CARD)
    assert torch.equal(sharded.encode(text=["a dog"], **CARD), expected)
    assert not torch.allclose(other.encode(text=["a dog"], **CARD), expected, atol=1e-2)
