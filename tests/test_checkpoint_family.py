"""Checkpoints that load wrongly, each in its own way: what stock transformers makes of them, and what we do."""

import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import checkpoint_family as family
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from alm2vec_integrations import ALM2VecEncoder, CheckpointError, InputError, ModelContractError

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])


SIGN = """
    def sign(self):
        from .helper import SIGN

        return SIGN
"""


@pytest.fixture
def sounds(tmp_path):
    return family.write_sounds(tmp_path)


@pytest.fixture
def filled_with_nan():
    """Uninitialised memory is filled with NaN, so that what lay there before does not decide the test."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def ours(folder, **keywords):
    return ALM2VecEncoder(folder, trust_remote_code=True, device="cpu", **keywords)


@pytest.mark.parametrize("verify", ["full", "fast"])
@pytest.mark.parametrize("name", family.FAMILY)
def test_right_vectors_or_a_precise_refusal(tmp_path, sounds, filled_with_nan, name, verify):
    """The vectors that 4.52.4 gave, up to rounding on another processor, or a message that says what and where."""
    member = family.FAMILY[name]
    encoder = ours(family.write(tmp_path / "m", member), dtype=member.dtype, verify=verify)
    if member.refused:
        with pytest.raises((CheckpointError, ModelContractError), match=member.refused):
            encoder.encode("x", task="query")
        return
    vectors = family.our_vectors(encoder, sounds)
    report = encoder.load_report
    assert bool(report.warnings) is bool(member.warns), report.warnings
    if member.warns:
        assert any(re.search(member.warns, warning) for warning in report.warnings)
    if name == "depends on batch-mates":
        return  # its vectors are another model's; that they are batch-dependent is for doctor to find
    if member.dtype == "float32" and "bfloat16" not in name:
        np.testing.assert_allclose(vectors, family.recorded(), atol=1e-4)
    else:
        assert 1 - (vectors * family.recorded()).sum(axis=1).min() < 1e-3


@pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 loads these as they were written to be loaded")
class TestStockTransformers5:
    """What these tests guard against does happen."""

    @pytest.mark.parametrize("name", ["pure-torch filterbank, not stored", "front-end by other names"])
    def test_a_filterbank_that_is_not_stored_becomes_uninitialised_memory(self, tmp_path, filled_with_nan, name):
        """Without an error or a warning."""
        member = family.FAMILY[name]
        folder = family.write(tmp_path / "m", member)
        stage = (member.code or {}).get("stage", "front_end")
        buffers = dict(getattr(family.stock(folder), stage).named_buffers())
        assert all(buffer.isnan().all() for buffer in buffers.values())
        mended = dict(getattr(ours(folder)._acquire().loaded().model, stage).named_buffers())
        assert all(buffer.isfinite().all() and buffer.any() for buffer in mended.values())

    @pytest.mark.parametrize("name", ["filterbank with .item()", "no post_init", "list of tied keys, tying true"])
    def test_these_do_not_load(self, tmp_path, name):
        """Although nothing is wrong with the checkpoint."""
        with pytest.raises((RuntimeError, AttributeError)):
            family.stock(family.write(tmp_path / "m", family.FAMILY[name]))


DOCUMENTED = Path(__file__).parents[1] / "docs" / "loading.md"


def documented():
    """What the table in docs/loading.md says of stock transformers of this version, by member."""
    rows = [line.strip("|\n ").split(" | ") for line in DOCUMENTED.read_text().splitlines() if line.startswith("| ")]
    header = next(row for row in rows if row[0] == "checkpoint")
    column = f"{transformers.__version__} stock"
    return {row[0]: row[header.index(column)] for row in rows if len(row) == len(header)} if column in header else None


@pytest.mark.skipif(documented() is None, reason="the table has no column for this version")
@pytest.mark.parametrize("name", family.FAMILY)
def test_what_stock_transformers_makes_of_it(tmp_path, sounds, filled_with_nan, name):
    """As the table in the docs has it: what goes wrong here does go wrong there."""
    member = family.FAMILY[name]
    found = family.stock_verdict(family.write(tmp_path / "m", member), member, sounds)
    # Made-up numbers differ by processor; that they are wrong does not.
    assert found.split(" (cosine")[0] == documented()[name].split(" (cosine")[0]


def test_nothing_stays_changed(tmp_path):
    """Neither on transformers nor on torch nor on the remote class, after success and after failure."""
    from torch import nn
    from transformers import PreTrainedModel

    def looks():
        return (
            nn.Module.register_parameter,
            torch.set_default_dtype,
            dict(vars(PreTrainedModel)),
            torch.get_default_dtype(),
            torch.empty(0).device,
        )

    before = looks()
    sound = ours(family.write(tmp_path / "sound", next(iter(family.FAMILY.values()))))
    remote = type(sound._acquire().loaded().model)
    assert "initialize_weights" not in vars(remote)
    assert vars(remote)["__init__"].__qualname__ == "FamilyModel.__init__"
    assert not hasattr(vars(remote)["__init__"], "__wrapped__")
    raises = family.Member("raises", {"constructor": "        raise RuntimeError('in the middle')\n"})
    with pytest.raises(CheckpointError, match="in the middle"):
        _ = ours(family.write(tmp_path / "m", raises)).dim
    assert looks() == before


class TestVerification:
    def test_a_value_changed_while_loading(self, tmp_path):
        """Code that rewrites a weight after it was loaded is found out, whichever element it is."""
        code = {"methods": "\n    def tie_weights(self, *a, **k):\n        self.encoder.weight.data[31, 15] += 1\n"}
        folder = family.write(tmp_path / "m", family.Member("rewrites a weight", code))
        with pytest.raises(CheckpointError, match=r"encoder\.weight in memory is not what .*model\.safetensors holds"):
            _ = ours(folder).dim

    @pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 leaves these buffers alone")
    def test_a_buffer_that_was_not_put_back(self, tmp_path, monkeypatch, filled_with_nan):
        """Should the mending itself ever fail, the comparison with a second construction notices."""
        monkeypatch.setattr("alm2vec_integrations.checkpoint.construction.Constructed.put_back", lambda *_: None)
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        with pytest.raises(CheckpointError, match=r"the buffer .* is not what the model's constructor makes it"):
            _ = ours(folder).dim

    @pytest.mark.parametrize(
        ("buffer", "batch"),
        [("torch.full((8, 8), -torch.inf).triu(1)", ""), ("torch.zeros(1)", "        self.extra += 1")],
        ids=["an infinite mask", "a buffer that calls change"],
    )
    def test_what_is_merely_unfamiliar_is_not_refused(self, tmp_path, sounds, buffer, batch):
        """Sound code that does what not every model does."""
        registered = f"        self.register_buffer('extra', {buffer}, persistent=False)\n"
        code = {"constructor": registered + family.POST_INIT, "batch": batch}
        encoder = ours(family.write(tmp_path / "m", family.Member("unfamiliar", code)))
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)

    def test_stored_buffers_may_be_made_from_parameters(self, tmp_path):
        """The files have their values."""
        constructor = "        self.register_buffer('ema', self.encoder.weight.detach().clone())\n" + family.POST_INIT
        folder = family.write(tmp_path / "m", family.Member("ema", {"constructor": constructor}))
        tensors = family.weights() | {"ema": torch.full((32, 16), 7.0)}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert (ours(folder)._acquire().loaded().model.ema == 7).all()

    def test_names_that_transformers_translates(self, tmp_path, sounds):
        """Their tensors are found by their values, compared as all others, and not called unused."""
        prefixed = family.Member("prefixed", {"class_body": "    base_model_prefix = 'model'\n"})
        folder = family.write(tmp_path / "m", prefixed)
        tensors = {f"model.{name}": tensor for name, tensor in family.weights().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder)
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        assert encoder.load_report.warnings == ()
        encoder.close()
        tensors["model.decoder.embed_tokens.weight"][200, 3] = float("nan")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"decoder\.embed_tokens\.weight holds NaN"):
            _ = ours(folder).dim

    @pytest.mark.parametrize("verify", ["full", "fast"])
    @pytest.mark.parametrize(
        "name", ["decoder.layers.0.self_attn.q_proj.bias", "decoder.layers.1.mlp.up_proj.weight", "encoder.weight"]
    )
    def test_a_class_that_hushes_up_what_is_missing(self, tmp_path, name, verify):
        """It is missing all the same."""
        hushes = f"    _keys_to_ignore_on_load_missing = [{name!r}]\n"
        folder = family.write(tmp_path / "m", family.Member("hushed", {"class_body": hushes}))
        family._rewrite(folder, lambda tensors: tensors.pop(name))
        with pytest.raises(CheckpointError, match=re.escape(name)):
            _ = ours(folder, verify=verify).dim

    @pytest.mark.parametrize("verify", ["full", "fast"])
    def test_a_parameter_rewritten_altogether(self, tmp_path, verify):
        """A sample of each tensor shows it too."""
        code = {"methods": "\n    def tie_weights(self, *a, **k):\n        self.encoder.weight.data += 1\n"}
        folder = family.write(tmp_path / "m", family.Member("rewrites", code))
        with pytest.raises(CheckpointError, match=r"encoder\.weight in memory is not what"):
            _ = ours(folder, verify=verify).dim

    @pytest.mark.parametrize(
        "buffer", ["torch.randn(64)", "torch.full((4,), torch.nan)", "torch.full((4, 4), -torch.inf).triu(1)"]
    )
    def test_scratch_space(self, tmp_path, sounds, buffer):
        """Buffers that are never the same twice, or not finite, are their code's business."""
        registered = f"        self.register_buffer('scratch', {buffer}, persistent=False)\n"
        folder = family.write(tmp_path / "m", family.Member("scratch", {"constructor": registered + family.POST_INIT}))
        encoder = ours(folder)
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        said = [warning for warning in encoder.load_report.warnings if "never the same twice: scratch" in warning]
        assert len(said) == ("randn" in buffer)

    def test_a_stored_mask_may_be_infinite(self, tmp_path, sounds):
        """NaN may not."""
        registered = "        self.register_buffer('mask', torch.zeros(4))\n" + family.POST_INIT
        folder = family.write(tmp_path / "m", family.Member("mask", {"constructor": registered}))
        family._rewrite(folder, lambda tensors: tensors.update(mask=torch.full((4,), -torch.inf)))
        np.testing.assert_allclose(family.our_vectors(ours(folder), sounds), family.recorded(), atol=1e-4)
        family._rewrite(folder, lambda tensors: tensors.update(mask=torch.full((4,), torch.nan)))
        with pytest.raises(CheckpointError, match="mask holds NaN"):
            _ = ours(folder, dtype="float32", verify="fast").dim

    def test_a_part_that_initialises_itself(self, tmp_path, sounds):
        """Its weights have no values yet when its own code would look at them."""
        part = (
            "        class Part(PreTrainedModel):\n"
            "            config_class, _supports_sdpa = Qwen2Config, True\n"
            "            def __init__(self, config):\n"
            "                super().__init__(config)\n"
            "                self.extra = nn.Linear(2, 2)\n"
            "                self.post_init()\n"
            "            def _init_weights(self, module):\n"
            "                if isinstance(module, nn.Linear):\n"
            "                    assert float(module.weight.abs().max()) < 100\n"
            "        self.part = Part(config.text_config)\n"
        )
        folder = family.write(tmp_path / "m", family.Member("part", {"constructor": part + family.POST_INIT}))
        extra = {"part.extra.weight": torch.ones(2, 2), "part.extra.bias": torch.ones(2)}
        family._rewrite(folder, lambda tensors: tensors.update(extra))
        np.testing.assert_allclose(family.our_vectors(ours(folder), sounds), family.recorded(), atol=1e-4)

    def test_arguments_of_the_constructor(self, tmp_path, sounds):
        """`model_kwargs` that reach it reach the construction that it is compared with too."""
        class_body = "    def __new__(cls, config, **keywords):\n        return super().__new__(cls)\n"
        constructor = "        self.register_buffer('n', torch.full((2,), float(self.size)), persistent=False)\n"
        code = {"class_body": class_body + "    size = 3\n", "constructor": constructor + family.POST_INIT}
        folder = family.write(tmp_path / "m", family.Member("argument", code))
        source = (folder / "modeling_family.py").read_text()
        source = source.replace("    def __init__(self, config):\n", "    def __init__(self, config, size=3):\n")
        source = source.replace("        self.encoder =", "        self.size = size\n        self.encoder =")
        (folder / "modeling_family.py").write_text(source)
        encoder = ours(folder, model_kwargs={"size": 5})
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        assert encoder._acquire().loaded().model.n.tolist() == [5, 5]

    def test_a_single_file_comes_before_an_index(self, tmp_path, sounds):
        """As transformers has it: an index beside it is left over."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"encoder.weight": "gone.safetensors"}}')
        np.testing.assert_allclose(family.our_vectors(ours(folder), sounds), family.recorded(), atol=1e-4)

    @pytest.mark.parametrize("weight_map", ["[]", '"x"', '{"a": 3}', "null"])
    def test_an_index_that_is_none(self, tmp_path, weight_map):
        """Said, whatever it holds."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {weight_map}}}')
        with pytest.raises(CheckpointError, match=r"index\.json: its weight_map"):
            _ = ours(folder).dim

    def test_code_that_is_not_text(self, tmp_path):
        """An error of ours."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        (folder / "modeling_family.py").write_bytes(b"# caf\xe9\n" + (folder / "modeling_family.py").read_bytes())
        with pytest.raises(CheckpointError, match="modeling_family"):
            _ = ours(folder).dim

    def test_files_of_the_hub_are_held_against_their_digest(self, tmp_path):
        """One flipped bit is found in files that the hub's cache names by their SHA-256."""
        import hashlib

        folder = family.write(tmp_path / "snapshots" / "m", next(iter(family.FAMILY.values())))
        data = (folder / "model.safetensors").read_bytes()
        blob = tmp_path / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir()
        blob.write_bytes(data)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(blob)
        assert "1 files have the SHA-256 that the hub names them by" in ours(folder).load_report.checks
        flipped = bytearray(data)
        flipped[-1000] ^= 1
        blob.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: its bytes are not those .* fetch it again"):
            _ = ours(folder, dtype="float32").dim

    def test_training_mode_switched_on_by_a_call(self, tmp_path):
        """Found after the probes too."""
        code = {
            "constructor": "        self.drop = nn.Dropout(0.5)\n" + family.POST_INIT,
            "batch": "        self.drop.train()",
        }
        with pytest.raises(CheckpointError, match=r"drop \(Dropout\) stays in training mode"):
            _ = ours(family.write(tmp_path / "m", family.Member("dropout", code))).dim

    def test_a_statistic_that_is_not_stored(self, tmp_path):
        """Batch norm without its means is another model."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        tensors = {name: tensor for name, tensor in family.weights().items() if "running_mean" not in name}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"norm\.running_mean, a statistic .* fetch it again"):
            _ = ours(folder).dim

    def test_a_listed_tie_that_the_configuration_denies(self, tmp_path):
        """A head that is not stored and not to be tied is missing."""
        code = {"class_body": family.LIST_TIED, "constructor": family.HEAD, "methods": family.OUTPUT}
        folder = family.write(tmp_path / "m", family.Member("denied", code, {"tie_word_embeddings": False}))
        with pytest.raises(CheckpointError, match=r"in no file of the checkpoint.*lm_head\.weight"):
            _ = ours(folder).dim

    def test_two_folders_of_one_name(self, tmp_path):
        """Each runs its own helper while both are in use, although transformers keeps helpers by the folder's name."""
        encoders, signs = {}, {}
        for place, sign in (("a", 1), ("b", -1)):
            member = family.Member(place, {"returned": "vectors * self.sign()", "methods": SIGN})
            folder = family.write(tmp_path / place / "same", member)
            (folder / "helper.py").write_text(f"SIGN = {sign}\n")
            encoders[place] = ours(folder)
            signs[place] = encoders[place].encode("x", task="query")
            assert set(encoders[place].load_report.code) == {"helper.py", "modeling_family.py"}
        np.testing.assert_array_equal(signs["a"], -signs["b"])
        np.testing.assert_array_equal(encoders["a"].encode("x", task="query"), signs["a"])

    @pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 itself changes this for the whole process")
    def test_other_threads_build_their_modules_as_ever(self, tmp_path):
        """What is changed while a model loads is changed for the thread that loads."""
        stop, on_meta = threading.Event(), []

        def build():
            while not stop.is_set():
                on_meta.append(torch.nn.Linear(3, 3).weight.is_meta)

        thread = threading.Thread(target=build)
        thread.start()
        for i in range(3):
            _ = ours(family.write(tmp_path / f"m{i}", next(iter(family.FAMILY.values())))).dim
        stop.set()
        thread.join()
        assert on_meta
        assert not any(on_meta)

    def test_a_model_that_does_not_hear(self, tmp_path):
        """Different sounds with one vector are a warning, in the report and in the log."""
        deaf = {"batch": "        waves = [None if w is None else torch.zeros_like(w) for w in waves]"}
        encoder = ours(family.write(tmp_path / "m", family.Member("deaf", deaf)))
        assert any("may not hear" in warning for warning in encoder.load_report.warnings)

    def test_the_report_says_what_ran_and_what_was_checked(self, tmp_path):
        """Readable, and as a dict."""
        import hashlib

        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        report = ours(folder).load_report
        digest = hashlib.sha256((folder / "modeling_family.py").read_bytes()).hexdigest()
        assert report.code == {"modeling_family.py": digest}
        stored = family.weights().items()
        assert report.parameters == sum(t.numel() for n, t in stored if "running" not in n and "num_" not in n)
        assert report.attention["decoder"] == "sdpa"
        assert "every value equals the file's, after the cast" in report.checks
        assert any("buffers that are not stored equal the constructor's" in check for check in report.checks)
        assert set(report.as_dict()) == set(report.__dataclass_fields__)
        assert digest in str(report)

    def test_verification_can_be_turned_off(self, tmp_path):
        """Then only the first call is made."""
        folder = family.write(tmp_path / "m", family.FAMILY["missing tensor"])
        report = ours(folder, verify="off").load_report
        assert report.checks == ("evaluation mode throughout", "a text encodes to one finite row")


class TestPrecision:
    def test_what_is_cast_and_what_is_not(self, tmp_path, sounds):
        """Layers by type; batch norm and every buffer stay in float32."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        encoder = ours(folder, dtype="bfloat16")
        vectors = family.our_vectors(encoder, sounds)
        model = encoder._acquire().loaded().model
        assert model.encoder.weight.dtype is torch.bfloat16
        assert {p.dtype for p in model.decoder.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in model.norm.parameters()} == {torch.float32}
        assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
        report = encoder.load_report
        assert report.dtype == "bfloat16"
        assert 0 < report.drift < 1e-3
        assert 1 - (vectors * family.recorded()).sum(axis=1).min() < 1e-3

    @pytest.mark.parametrize("what", ["", "audio is None and ", "audio is not None and "])
    @pytest.mark.parametrize("trouble", ["vectors.flip(1)", "vectors.no_such_thing", "vectors * float('nan')"])
    def test_float32_where_less_does_not_do(self, tmp_path, sounds, trouble, what):
        """A model that suffers from bfloat16, in texts or in sounds, falls back, and says so."""
        code = {"returned": f"{trouble} if {what}self.encoder.weight.dtype is not torch.float32 else vectors"}
        encoder = ours(family.write(tmp_path / "m", family.Member("drifts", code)), dtype="bfloat16")
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        report = encoder.load_report
        assert report.dtype == "float32"
        assert any("float32 is used" in warning for warning in report.warnings)

    def test_code_that_reads_weights_outside_their_layer(self, tmp_path, sounds):
        """It cannot be run in float32 one layer at a time, and so runs in float32 altogether, with a warning."""
        attend = "        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)\n" + family.POST_INIT
        returned = "(vectors + 0 * self.attention(*[vectors[None].to(self.attention.in_proj_weight.dtype)] * 3)[0][0])"
        folder = family.write(tmp_path / "m", family.Member("attention", {"constructor": attend, "returned": returned}))
        extra = {
            "attention.in_proj_weight": torch.ones(96, 32),
            "attention.in_proj_bias": torch.zeros(96),
            "attention.out_proj.weight": torch.ones(32, 32),
            "attention.out_proj.bias": torch.zeros(32),
        }
        narrow = {n: t.bfloat16() if t.is_floating_point() else t for n, t in (family.weights() | extra).items()}
        save_file(narrow, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder, dtype="bfloat16")
        vectors = family.our_vectors(encoder, sounds)
        assert encoder.load_report.dtype == "float32"
        assert any("float32 is used" in warning for warning in encoder.load_report.warnings)
        assert 1 - (vectors * family.recorded()).sum(axis=1).min() < 1e-3

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
    @pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
    def test_files_in_lower_precision(self, tmp_path, sounds, stored, dtype):
        """Widened, or taken as they are; batch norm and buffers are in float32 in any case."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        narrow = {n: t.to(stored) if t.is_floating_point() else t for n, t in family.weights().items()}
        save_file(narrow, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder, dtype=dtype)
        assert 1 - (family.our_vectors(encoder, sounds) * family.recorded()).sum(axis=1).min() < 1e-3
        model = encoder._acquire().loaded().model
        assert model.encoder.weight.dtype is (stored if dtype == "auto" else getattr(torch, dtype))
        assert {p.dtype for p in model.norm.parameters()} == {torch.float32}
        assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
        assert encoder.load_report.warnings == ()
        assert (encoder.load_report.drift is None) is (dtype == "float32")

    def test_each_tensor_as_it_is_stored(self, tmp_path, sounds):
        """One tensor in float32 widens its own layer, is not narrowed itself, and leaves the others alone."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        mixed = {n: t.bfloat16() if t.is_floating_point() and n != "encoder.bias" else t
                 for n, t in family.weights().items()}  # fmt: skip
        save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder, dtype="auto")
        assert 1 - (family.our_vectors(encoder, sounds) * family.recorded()).sum(axis=1).min() < 1e-3
        model = encoder._acquire().loaded().model
        assert torch.equal(model.encoder.bias, family.weights()["encoder.bias"])
        assert model.encoder.weight.dtype is torch.float32
        assert encoder.load_report.warnings == ()
        assert {p.dtype for p in model.decoder.parameters()} == {torch.bfloat16}

    @pytest.mark.parametrize("name", ["dtype", "torch_dtype", "config", "token"])
    def test_what_model_kwargs_may_not_hold(self, tmp_path, name):
        """What the encoder has an argument for, or decides itself."""
        with pytest.raises(InputError, match=rf"model_kwargs cannot hold '{name}'"):
            ours(tmp_path, model_kwargs={name: torch.bfloat16})

    def test_keyword_arguments_of_any_type(self, tmp_path):
        """As accelerate's `max_memory`, with keys of two types; equal ones share a model in any order."""
        pytest.importorskip("accelerate")
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        one = {"device_map": "auto", "max_memory": {0: "1GiB", "cpu": "4GiB"}}
        other = {"max_memory": {"cpu": "4GiB", 0: "1GiB"}, "device_map": "auto"}
        first, second = ours(folder, model_kwargs=one), ours(folder, model_kwargs=other)
        assert first._acquire() is second._acquire()

    def test_keyword_arguments_reach_transformers(self, tmp_path, sounds):
        """Attention is reported as it is; what transformers does not know is refused by it."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        encoder = ours(folder, model_kwargs={"attn_implementation": "eager"})
        assert encoder.load_report.attention["(itself)"] == "eager"
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        with pytest.raises(CheckpointError, match="nonsense"):
            _ = ours(folder, model_kwargs={"nonsense": 1}).dim

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_device_map(self, tmp_path, sounds, dtype):
        """Placed by transformers, and verified and cast all the same, buffers included."""
        pytest.importorskip("accelerate")
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        encoder = ours(folder, model_kwargs={"device_map": {"": "cpu"}}, dtype=dtype)
        vectors = family.our_vectors(encoder, sounds)
        assert 1 - (vectors * family.recorded()).sum(axis=1).min() < (1e-6 if dtype == "float32" else 1e-3)
        assert encoder.load_report.dtype == dtype
        assert any("every value equals" in check for check in encoder.load_report.checks)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_quantised_model(self, tmp_path, sounds, dtype):
        """What is quantised is not compared, and that is said; the rest is, and batch norm and buffers stay float32."""
        quantization = pytest.importorskip("torchao.quantization")
        config = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        encoder = ours(folder, dtype=dtype, model_kwargs={"quantization_config": config})
        vectors = family.our_vectors(encoder, sounds)
        assert 1e-6 < 1 - (vectors * family.recorded()).sum(axis=1).min() < 1e-2
        model, report = encoder._acquire().loaded().model, encoder.load_report
        assert type(model.encoder.weight) is not torch.nn.Parameter
        assert {p.dtype for p in model.norm.parameters()} == {torch.float32}
        assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
        assert report.dtype == f"{dtype}, partly quantised"
        assert "every value that is not quantised equals the file's, after the cast" in report.checks
        assert any(re.search(r"15 quantised tensors were not compared", warning) for warning in report.warnings)
        assert report.bytes < report.parameters * (3 if dtype == "float32" else 2.2)

    def test_a_quantised_model_with_a_missing_tensor(self, tmp_path):
        """Refused as any other."""
        quantization = pytest.importorskip("torchao.quantization")
        config = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
        folder = family.write(tmp_path / "m", family.FAMILY["missing tensor"])
        with pytest.raises(CheckpointError, match=r"in no file of the checkpoint.*encoder\.weight"):
            _ = ours(folder, model_kwargs={"quantization_config": config}).dim

    def test_what_falls_back_is_verified_again(self, tmp_path, monkeypatch):
        """The values read again for float32 are compared with the files as the first ones were."""
        from alm2vec_integrations.checkpoint import settling

        def wrong(model, stored):
            reload(model, stored)
            model.encoder.weight.data += 1

        reload = settling.reload_in_float32
        monkeypatch.setattr(settling, "reload_in_float32", wrong)
        code = {"returned": "vectors if self.encoder.weight.dtype is torch.float32 else vectors.flip(1)"}
        folder = family.write(tmp_path / "m", family.Member("drifts", code))
        with pytest.raises(CheckpointError, match=r"encoder\.weight in memory is not what"):
            _ = ours(folder, dtype="bfloat16").dim

    def test_a_nested_configuration_has_no_say(self, tmp_path):
        """Stock transformers leaves the decoder in the dtype that its own configuration names."""
        member = family.FAMILY["decoder's own dtype"]
        folder = family.write(tmp_path / "m", member)
        assert "bfloat16" in ours(folder, dtype="bfloat16").load_report.dtypes["decoder"]
        assert "float32" in ours(folder, dtype="float32").load_report.dtypes["decoder"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("stored", "dtype"), [("float32", "float32"), ("mixed", "auto")])
def test_host_memory_of_a_checkpoint_in_many_shards(tmp_path, stored, dtype):
    """2 GB in 20 shards, or half of that in bfloat16: never more anonymous memory than a shard and a GiB."""
    script = """
        import sys, threading, time
        from pathlib import Path
        import torch
        from safetensors.torch import load_file, save_file
        from alm2vec_integrations import ALM2VecEncoder
        from alm2vec_integrations.tiny.writer import BUNDLED, Shape, write_checkpoint

        def anonymous():
            return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

        mixed = sys.argv[3] == "mixed"
        text = {**BUNDLED.text_config, "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 8,
                "num_attention_heads": 16, "num_key_value_heads": 4}
        folder = Path(sys.argv[1])
        write_checkpoint(folder, Shape(512, 4, 8, 2048, text), max_shard_bytes=100_000_000)
        for file in folder.glob("*.safetensors") if mixed else ():
            narrow = {n: t.bfloat16() if t.is_floating_point() and n != "decoder.norm.weight" else t
                      for n, t in load_file(file).items()}
            save_file(narrow, file, metadata={"format": "pt"})
        total = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        largest = max(f.stat().st_size for f in folder.glob("*.safetensors"))
        ALM2VecEncoder("alm2vec-tiny").dim  # what imports and first calls take is not the checkpoint's
        before, peak, done = anonymous(), 0, False

        def watch():
            global peak
            while not done:
                peak = max(peak, anonymous())
                time.sleep(0.002)

        thread = threading.Thread(target=watch)
        thread.start()
        encoder = ALM2VecEncoder(folder, trust_remote_code=True, device="cpu", verify="full", dtype=sys.argv[2])
        assert encoder.dim == 2048
        done = True
        thread.join()
        print(total, largest, peak - before)
    """
    import textwrap

    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        "-c",
        textwrap.dedent(script),
        str(tmp_path / "big"),
        dtype,
        stored,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total, largest, peak = map(int, done.stdout.split())
    assert total >= (1_000_000_000 if stored == "mixed" else 2_000_000_000)
    assert total > 15 * largest
    assert peak < largest + 2**30


def test_the_commit_and_the_code_are_logged(tmp_path, caplog):
    """For whoever has to find out later what ran."""
    folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
    with caplog.at_level(logging.INFO, logger="alm2vec_integrations"):
        _ = ours(folder).dim
    assert "modeling_family.py" in caplog.text
    assert "revision none" in caplog.text
