"""Sound checkpoints that do what not every checkpoint does, and unsound ones that hide it well."""

import json
import threading
import time

import checkpoint_family as family
import fake_checkpoints
import numpy as np
import pytest
import torch
import transformers
from made_checkpoints import VERSION, close_to_recorded, make, ours
from safetensors.torch import save_file

from alm2vec_integrations import CheckpointError
from alm2vec_integrations.checkpoint import naming
from alm2vec_integrations.checkpoint.weights import StoredWeights

NESTED = """
class EarsConfig(PretrainedConfig):
    model_type = "ears"


class FrontEnd(PreTrainedModel):
    config_class = EarsConfig

    def __init__(self, config):
        super().__init__(config)
"""


FROM_PRETRAINED = """
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model.scale_file = 1
        return model.eval()
"""


@pytest.fixture
def sounds(tmp_path):
    return family.write_sounds(tmp_path)


class TestNestedModels:
    """Front-ends that are transformers models of their own, made by `_from_config`."""

    @pytest.fixture
    def nested(self, tmp_path):
        def write(stored=None, **audio):
            code = {"front_end": family.PURE_TORCH + "        self.post_init()\n"}
            folder = make(tmp_path / "m", code=code, config={"audio_config": audio}, narrow=stored)
            source = (folder / "modeling_family.py").read_text()
            source = source.replace(
                "class FamilyConfig(PretrainedConfig):",
                f"""{NESTED.split("class FrontEnd")[0]}
class FamilyConfig(PretrainedConfig):
    sub_configs = {{"audio_config": EarsConfig, "text_config": Qwen2Config}}""",
            )
            source = source.replace(
                "def __init__(self, text_config=None, **keywords):\n",
                "def __init__(self, text_config=None, audio_config=None, **keywords):\n"
                "        self.audio_config = EarsConfig(**(audio_config or {}))\n",
            )
            source = source.replace(
                "class FrontEnd(nn.Module):\n    def __init__(self):\n        super().__init__()\n",
                "class FrontEnd" + NESTED.split("class FrontEnd")[1],
            )
            source = source.replace("= FrontEnd()", "= FrontEnd._from_config(config.audio_config)")
            (folder / "modeling_family.py").write_text(source)
            return folder

        return write

    @pytest.mark.parametrize("stored", [None, torch.bfloat16])
    @pytest.mark.parametrize("audio", [{}, {"dtype": "bfloat16", "torch_dtype": "bfloat16"}])
    def test_their_buffers_are_computed_in_float32(self, nested, sounds, stored, audio):
        """Whatever the weights are stored in and whatever their own configuration asks for."""
        encoder = ours(nested(stored, **audio))
        assert close_to_recorded(encoder, sounds)
        window = encoder._acquire().loaded().model.front_end.window
        assert torch.equal(window, torch.hann_window(400))

    def test_other_threads_keep_their_default_dtype(self, nested):
        """Also while a model that is stored in bfloat16 is constructed."""
        folder, seen, stop = nested(torch.bfloat16), set(), threading.Event()

        def watch():
            while not stop.is_set():
                seen.add(torch.get_default_dtype())

        thread = threading.Thread(target=watch)
        thread.start()
        for _ in range(3):
            with ours(folder) as encoder:
                assert encoder.dim
        stop.set()
        thread.join()
        assert seen == {torch.float32}


class TestTensors:
    @pytest.mark.parametrize("stored", ["decoder.rotary_emb.inv_freq", "front_end.window"])
    @pytest.mark.parametrize("quantized", [False, True])
    def test_a_stored_tensor_named_like_a_buffer_that_is_not(self, tmp_path, sounds, stored, quantized):
        """Left over from an older version: unused, and said to be."""
        keywords = {}
        if quantized:
            quantization = pytest.importorskip("torchao.quantization")
            config = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
            keywords = {"model_kwargs": {"quantization_config": config}}
        shape = {"decoder.rotary_emb.inv_freq": 4, "front_end.window": 400}[stored]
        code = {"front_end": family.PURE_TORCH}
        folder = make(tmp_path / "m", code=code, tensors={stored: torch.full((shape,), 7.0, dtype=torch.bfloat16)})
        encoder = ours(folder, **keywords)
        assert close_to_recorded(encoder, sounds)
        assert any(f"not used by the model: {stored}" in warning for warning in encoder.load_report.warnings)

    @pytest.mark.parametrize("verify", ["full", "fast"])
    def test_a_missing_parameter_is_not_found_in_what_looks_like_it(self, tmp_path, verify):
        """Fresh memory is often zeros, and so may be a tensor that is not used."""
        constructor = "        self.pos = nn.Parameter(torch.zeros(1024, 1024))\n" + family.POST_INIT
        tensors = {"head.table": torch.zeros(1024, 1024)}
        folder = make(tmp_path / "m", code={"constructor": constructor}, tensors=tensors)
        with pytest.raises(CheckpointError, match=r"in no file of the checkpoint.*pos"):
            _ = ours(folder, verify=verify).dim

    def test_a_renamed_tensor_is_told_by_its_values(self, tmp_path):
        """Not by its shape and the end of its name."""
        model, wanted = torch.nn.ModuleDict({"layer": torch.nn.Linear(5, 5)}), torch.randn(5, 5)
        model["layer"].weight.data = wanted
        decoys = {f"{letter}.layer.weight": torch.randn(5, 5) for letter in "abcdef"}
        stored = decoys | {"old.name": wanted, "layer.bias": torch.zeros(5)}
        save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
        for full in (True, False):
            found = naming.called_otherwise(model, StoredWeights(tmp_path), frozenset(), full=full)
            assert found == {"old.name": "layer.weight"}

    @pytest.mark.parametrize(("verify", "refused"), [("full", True), ("fast", False)])
    def test_full_looks_at_every_value(self, tmp_path, verify, refused):
        """A sample does not, and says so."""
        rewrites = "        self.decoder.embed_tokens.weight.data[0, 1] += 1\n"
        code = {"methods": "\n    def tie_weights(self, *a, **k):\n" + rewrites}
        folder = make(tmp_path / "m", code=code)
        assert family.weights()["decoder.embed_tokens.weight"].numel() == 2 * naming.SAMPLE
        if refused:
            with pytest.raises(CheckpointError, match=r"embed_tokens\.weight in memory is not what"):
                _ = ours(folder, verify=verify).dim
        else:
            checks = ours(folder, verify=verify).load_report.checks
            assert "a sample of 4096 values of each tensor equals the file's, after the cast" in checks

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_stored_buffer_that_calls_change(self, tmp_path, sounds, dtype):
        """A counter is compared before it counts."""
        code = {
            "constructor": "        self.register_buffer('calls', torch.zeros(1))\n" + family.POST_INIT,
            "batch": "        self.calls += 1",
        }
        folder = make(tmp_path / "m", code=code, tensors={"calls": torch.full((1,), 5.0)})
        assert close_to_recorded(ours(folder, dtype=dtype), sounds)

    @pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 loads what the class sets as it is")
    def test_a_buffer_that_from_pretrained_sets(self, tmp_path):
        """After the constructor has run: not overwritten in silence."""
        code = {
            "front_end": family.PURE_TORCH,
            "methods": (
                "\n    @classmethod\n    def from_pretrained(cls, *args, **keywords):\n"
                "        model = super().from_pretrained(*args, **keywords)\n"
                "        model.front_end.window *= 2\n        return model\n"
            ),
        }
        with pytest.raises(CheckpointError, match=r"the buffer front_end\.window is not what"):
            _ = ours(make(tmp_path / "m", code=code)).dim

    def test_a_shape_that_does_not_fit(self, tmp_path):
        """Names the tensor, both shapes, and what to do."""
        folder = make(tmp_path / "m", tensors={"encoder.weight": torch.ones(32, 17)})
        with pytest.raises(CheckpointError, match=r"encoder\.weight has shape \(32, 17\) in .* and \(32, 16\) in"):
            _ = ours(folder).dim

    def test_names_that_nobody_knows(self, tmp_path):
        """The parameters are what is missing, before any statistic."""
        folder = make(tmp_path / "m")
        save_file({f"x.{n}": t for n, t in family.weights().items()}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"parameters are in no file of the checkpoint.*does not know: x\."):
            _ = ours(folder).dim

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_other_names_and_other_dtypes(self, tmp_path, sounds, dtype):
        """A renamed tensor in float32 among others in bfloat16 is neither rounded nor called changed."""
        constructor = "        self.pos = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))\n" + family.POST_INIT
        pos = {"pos.weight_g": torch.rand(4, 1) + 1, "pos.weight_v": torch.randn(4, 4), "pos.bias": torch.zeros(4)}
        stored = {n: t.bfloat16() if t.is_floating_point() else t for n, t in family.weights().items()} | pos
        folder = make(tmp_path / "m", code={"constructor": constructor})
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder, dtype=dtype)
        assert close_to_recorded(encoder, sounds)
        if dtype == "float32":
            norms = encoder._acquire().loaded().model.pos.parametrizations.weight.original0
            assert torch.equal(norms, pos["pos.weight_g"])

    @pytest.mark.parametrize(
        ("constructor", "methods"),
        [
            (
                family.HEAD,
                "\n    def tie_weights(self):\n        self.lm_head.weight = self.decoder.embed_tokens.weight\n",
            ),
            (family.POST_INIT, "\n    def tie_weights(self):\n        return self.decoder.tie_weights()\n"),
            ("        self.init_weights()\n", ""),
            (family.POST_INIT, FROM_PRETRAINED),
        ],
        ids=["ties a head", "passes it on", "init_weights", "from_pretrained"],
    )
    def test_methods_as_transformers_4_had_them(self, tmp_path, sounds, constructor, methods):
        """Overridden without the arguments of version 5; called where it wants `post_init`."""
        encoder = ours(make(tmp_path / "m", code={"constructor": constructor, "methods": methods}))
        assert close_to_recorded(encoder, sounds, most=1e-6)

    @pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 reads these names as they are")
    def test_a_prefix_that_makes_two_names_one(self, tmp_path):
        """Transformers 5 takes `decoder.norm` for `norm`: said, and not called a wrong shape."""
        folder = make(tmp_path / "m", code={"class_body": "    base_model_prefix = 'decoder'\n"})
        said = r"takes another tensor for decoder\.norm\.weight: it strips the prefix 'decoder'"
        with pytest.raises(CheckpointError, match=said):
            _ = ours(folder).dim


class TestWideAndOddTensors:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_statistics_in_float64(self, tmp_path, sounds, dtype):
        """Are computed with in float32, as batch norms are."""
        mean = family.weights()["norm.running_mean"].double()
        for folder in (
            make(tmp_path / "one", tensors={"norm.running_mean": mean}),
            make(tmp_path / "all", narrow=torch.float64),
        ):
            encoder = ours(folder, dtype=dtype)
            assert close_to_recorded(encoder, sounds)
            assert encoder.load_report.dtype == dtype

    @pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")
    def test_a_from_pretrained_that_builds_the_model_itself(self, tmp_path, sounds):
        """Loads into parameters without memory; they get the files' values all the same, with a word."""
        builds = """
    @classmethod
    def from_pretrained(cls, folder, *args, config=None, **keywords):
        from safetensors.torch import load_file

        model = cls(config)
        model.load_state_dict(load_file(f"{folder}/model.safetensors"))
        return model
"""
        encoder = ours(make(tmp_path / "m", code={"methods": builds}))
        assert close_to_recorded(encoder, sounds, most=1e-6)
        assert any("got the files'" in said for said in encoder.load_report.warnings)

    @pytest.mark.parametrize("bias", [True, False])
    def test_a_parametrised_layer_in_lower_precision(self, tmp_path, bias):
        """Computes in float32 itself, and keeps nothing else from bfloat16."""
        layer = f"        self.pos = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32, bias={bias}))\n"
        part = "pos.parametrizations.weight.original"
        tensors = {f"{part}0": torch.rand(32, 1) + 1, f"{part}1": torch.randn(32, 32), "pos.bias": torch.zeros(32)}
        folder = make(
            tmp_path / "m",
            code={"constructor": layer + family.POST_INIT, "returned": "self.pos(vectors)"},
            tensors={name: tensor for name, tensor in tensors.items() if bias or name != "pos.bias"},
        )
        report = ours(folder, dtype="bfloat16").load_report
        assert (report.dtype, report.warnings) == ("bfloat16", ())


class TestSilence:
    """Peak-normalising code divides by nothing where a clip is digital silence."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize(
        "batch",
        [
            "waves = [w if w is None else w / w.abs().max() for w in waves]",
            "assert audio is None or all(w.any() for w in waves), 'silent'",
        ],
        ids=["NaN", "raises"],
    )
    def test_a_model_without_a_vector_for_it(self, tmp_path, batch, dtype):
        """Is used, with a warning that names silence."""
        report = ours(make(tmp_path / "m", code={"batch": f"        {batch}"}), dtype=dtype).load_report
        assert report.dtype == dtype
        assert "noise and a tone with a question encode to finite rows" in report.checks
        (said,) = report.warnings
        assert said.startswith("it gives no vector for digital silence (")

    def test_lower_precision_without_a_vector_for_it(self, tmp_path):
        """Where float32 has one, does not do."""
        narrow = "self.encoder.weight.dtype is not torch.float32"
        batch = f"        waves = [w / w.abs().max() if w is not None and {narrow} else w for w in waves]"
        report = ours(make(tmp_path / "m", code={"batch": batch}), dtype="bfloat16").load_report
        assert report.dtype == "float32"
        assert any("for silence it has no vector, unlike in float32" in said for said in report.warnings)

    @pytest.mark.parametrize("sound", ["noise", "tone"])
    def test_a_model_without_a_vector_for_sound(self, tmp_path, sound):
        """Is refused."""
        is_it = {"noise": "w.std() < 0.2", "tone": "w.std() > 0.2"}[sound]
        batch = f"        assert not any(w is not None and w.any() and {is_it} for w in waves), 'not that'"
        with pytest.raises(CheckpointError, match="not that"):
            _ = ours(make(tmp_path / "m", code={"batch": batch})).dim


class TestConfiguration:
    @pytest.mark.parametrize("where", ["config.json", "model_kwargs"])
    def test_no_quantisation_written_down(self, tmp_path, sounds, where):
        """None is none."""
        folder = make(tmp_path / "m")
        if where == "config.json":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
        keywords = {"model_kwargs": {"quantization_config": None, "device_map": None}} if where != "config.json" else {}
        encoder = ours(folder, dtype="bfloat16", **keywords)
        assert close_to_recorded(encoder, sounds)
        assert encoder.load_report.dtype == "bfloat16"
        assert encoder.load_report.drift is not None

    def test_drift_just_past_the_threshold(self, tmp_path, sounds):
        """Is too much."""
        nudge = "(vectors if self.encoder.weight.dtype is torch.float32 else vectors + 0.2 * vectors.roll(1, 1))"
        folder = make(tmp_path / "m", code={"returned": nudge})
        report = ours(folder, dtype="bfloat16").load_report
        assert 0.01 < report.drift < 0.1
        assert report.dtype == "float32"

    def test_what_float32_was_compared_with(self, tmp_path):
        """Where the files hold less, that is said."""
        said = "the float32 to compare with was computed one layer at a time, since the files hold less"
        assert said in ours(make(tmp_path / "a", narrow=torch.bfloat16), dtype="bfloat16").load_report.checks
        assert said not in ours(make(tmp_path / "b"), dtype="bfloat16").load_report.checks


class TestCode:
    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["other/repo--tok.Tok", None]}}),
            ("processor_config.json", {"auto_map": {"AutoProcessor": "other/repo--proc.Proc"}}),
            ("config.json", {"text_config": {"auto_map": {"AutoModel": "other/repo--m.M"}}}),
        ],
    )
    def test_any_auto_map_into_another_repository(self, tmp_path, file, content):
        """Of the tokenizer, the processor, a part."""
        folder = make(tmp_path / "m")
        before = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(before | content))
        with pytest.raises(CheckpointError, match=rf"auto_map in {file} takes its code from another repository"):
            _ = ours(folder).dim

    def test_all_of_it_is_listed(self, tmp_path):
        """Also what a processor is made of, with what that imports."""
        folder = make(tmp_path / "m", config={"auto_map": {
            "AutoConfig": "modeling_family.FamilyConfig", "AutoModel": "modeling_family.FamilyModel",
            "AutoProcessor": "processing.Proc", "AutoTokenizer": ["not_there.Tok", None]}})  # fmt: skip
        (folder / "processing.py").write_text("from .more import x\n\n\nclass Proc:\n    pass\n")
        (folder / "more.py").write_text("x = 1\n")
        assert set(ours(folder).load_report.code) == {"modeling_family.py", "processing.py", "more.py"}

    @pytest.mark.parametrize("broken", ["modeling_family.py", "helper.py"])
    def test_a_syntax_error_names_its_file(self, tmp_path, broken):
        """And the line, in whichever file it is."""
        folder = make(tmp_path / "m")
        model = folder / "modeling_family.py"
        model.write_text("from .helper import x\n" + model.read_text())
        (folder / "helper.py").write_text("x = 1\n")
        (folder / broken).write_text((folder / broken).read_text() + "\nx = = 2\n")
        line = len((folder / broken).read_text().splitlines())
        with pytest.raises(CheckpointError, match=rf"SyntaxError: invalid syntax \({broken}, line {line}\)"):
            _ = ours(folder).dim

    def test_helpers_of_helpers(self, tmp_path, sounds):
        """Of a folder on every version."""
        folder = make(tmp_path / "m", code={"returned": "vectors * SIGN"})
        source = (folder / "modeling_family.py").read_text()
        (folder / "modeling_family.py").write_text("from .first import SIGN\n" + source)
        (folder / "first.py").write_text("from .second import SIGN\n")
        (folder / "second.py").write_text("SIGN = 1\n")
        assert close_to_recorded(ours(folder), sounds)

    def test_models_load_one_after_the_other(self, tmp_path, fake, monkeypatch):
        """In one process, whichever thread asks: while one loads, transformers is changed."""
        inside, most = 0, 0
        code = fake_checkpoints.CODE.replace(
            "        super().__init__(config)\n",
            "        super().__init__(config)\n        fake_checkpoints.in_constructor()\n",
        )

        def constructing():
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1

        monkeypatch.setattr(fake_checkpoints, "in_constructor", constructing)
        folders = [fake_checkpoints.write(tmp_path / str(i), code) for i in range(4)]
        encoders = [ours(folder) for folder in folders]
        threads = [threading.Thread(target=lambda e=encoder: e.dim) for encoder in encoders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fake_checkpoints.loads) == 4
        assert most == 1


def test_vectors_are_not_compared_by_accident(sounds, tmp_path):
    """The helper of this file can fail."""
    flipped = ours(make(tmp_path / "m", code={"returned": "vectors.flip(1)"}))
    assert not close_to_recorded(flipped, sounds)
    assert np.isfinite(family.our_vectors(flipped, sounds)).all()


@pytest.mark.skipif(VERSION < (5,), reason="4.52 gives the head the embedding's values, and ours refuses that")
@pytest.mark.parametrize("verify", ["full", "fast", "off"])
def test_an_embedding_under_another_name_is_not_taken_for_missing(tmp_path, sounds, verify):
    """A class that ties its head, files with a prefix and a head of their own: whatever is verified."""
    code = {
        "class_body": family.LIST_TIED + '    base_model_prefix = "model"\n',
        "constructor": family.HEAD,
        "methods": family.OUTPUT,
    }
    folder = make(tmp_path / "m", code=code, config={"tie_word_embeddings": None})
    tensors = {f"model.{name}": tensor for name, tensor in family.weights().items()}
    tensors["lm_head.weight"] = torch.randn(256, 32, generator=torch.Generator().manual_seed(1))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert close_to_recorded(ours(folder, verify=verify), sounds)
