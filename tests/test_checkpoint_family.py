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

from alm2vec_integrations import ALM2VecEncoder, CheckpointError, ModelContractError

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])


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


def test_stock_transformers_makes_a_missing_tensor_up(tmp_path):
    """On every version: random values, and no error."""
    folder = family.write(tmp_path / "m", family.FAMILY["missing tensor"])
    assert family.stock(folder).encoder.weight.shape == (32, 16)


def test_nothing_stays_changed(tmp_path):
    """Neither on transformers nor on torch nor on the remote class, after success and after failure."""
    from torch import nn
    from transformers import PreTrainedModel

    def looks():
        return (
            nn.Module.register_parameter,
            vars(PreTrainedModel).get("get_expanded_tied_weights_keys"),
            vars(PreTrainedModel).get("initialize_weights"),
            torch.get_default_dtype(),
            torch.empty(0).device,
        )

    before = looks()
    sound = ours(family.write(tmp_path / "sound", next(iter(family.FAMILY.values()))))
    remote = type(sound._acquire().loaded().model)
    assert "initialize_weights" not in vars(remote)
    assert vars(remote)["__init__"].__qualname__ == "FamilyModel.__init__"
    assert not hasattr(vars(remote)["__init__"], "__wrapped__")
    with pytest.raises(CheckpointError):
        _ = ours(family.write(tmp_path / "m", family.FAMILY["missing tensor"])).dim
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
        """Loaded by it, and said not to be compared."""
        folder = family.write(
            tmp_path / "m", family.Member("prefixed", {"class_body": "    base_model_prefix = 'model'\n"})
        )
        tensors = {f"model.{name}": tensor for name, tensor in family.weights().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ours(folder)
        np.testing.assert_allclose(family.our_vectors(encoder, sounds), family.recorded(), atol=1e-4)
        assert any("names that transformers translates" in warning for warning in encoder.load_report.warnings)

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
        """Each runs its own helper, although transformers keeps helpers by the folder's name."""
        signs = {}
        for place, sign in (("a", 1), ("b", -1), ("a", 1)):
            member = family.Member(place, {"returned": "vectors * SIGN"})
            folder = family.write(tmp_path / place / "same", member)
            code = (folder / "modeling_family.py").read_text()
            (folder / "modeling_family.py").write_text("from .helper import SIGN\n" + code)
            (folder / "helper.py").write_text(f"SIGN = {sign}\n")
            with ours(folder) as encoder:
                signs[place] = encoder.encode("x", task="query")
                assert set(encoder.load_report.code) == {"helper.py", "modeling_family.py"}
        np.testing.assert_array_equal(signs["a"], -signs["b"])

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
        assert "2 buffers that are not stored" not in report.checks
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

    @pytest.mark.parametrize("trouble", ["drifts", "raises"])
    def test_float32_where_less_does_not_do(self, tmp_path, sounds, trouble):
        """A model that suffers from bfloat16 falls back, and says so."""
        drifts = "vectors if self.encoder.weight.dtype is torch.float32 else vectors.flip(1)"
        raises = "vectors if self.encoder.weight.dtype is torch.float32 else vectors.no_such_thing"
        code = {"returned": drifts if trouble == "drifts" else raises}
        encoder = ours(family.write(tmp_path / "m", family.Member(trouble, code)), dtype="bfloat16")
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

    def test_as_stored(self, tmp_path):
        """dtype="auto" changes nothing; a bfloat16 file is widened for float32."""
        folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
        narrow = {
            n: t.bfloat16() if t.is_floating_point() and "norm." not in n else t for n, t in family.weights().items()
        }
        save_file(narrow, folder / "model.safetensors", metadata={"format": "pt"})
        for dtype, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            model = ours(folder, dtype=dtype)._acquire().loaded().model
            assert model.encoder.weight.dtype is expected

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

    def test_a_nested_configuration_has_no_say(self, tmp_path):
        """Stock transformers leaves the decoder in the dtype that its own configuration names."""
        member = family.FAMILY["decoder's own dtype"]
        folder = family.write(tmp_path / "m", member)
        assert "bfloat16" in ours(folder, dtype="bfloat16").load_report.dtypes["decoder"]
        assert "float32" in ours(folder, dtype="float32").load_report.dtypes["decoder"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_host_memory_of_a_checkpoint_in_many_shards(tmp_path):
    """2 GB in 20 shards: never more anonymous memory than a shard and a GiB."""
    script = """
        import sys, threading, time
        from pathlib import Path
        import torch
        from alm2vec_integrations import ALM2VecEncoder
        from alm2vec_integrations.tiny.writer import BUNDLED, Shape, write_checkpoint

        def anonymous():
            return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

        text = {**BUNDLED.text_config, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 8,
                "num_attention_heads": 16, "num_key_value_heads": 4}
        folder = Path(sys.argv[1])
        write_checkpoint(folder, Shape(512, 4, 8, 2048, text), max_shard_bytes=100_000_000)
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
        encoder = ALM2VecEncoder(folder, trust_remote_code=True, device="cpu", verify=sys.argv[2])
        assert encoder.dim == 2048
        done = True
        thread.join()
        print(total, largest, peak - before)
    """
    import textwrap

    command = [sys.executable, "-P", "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path / "big"), "full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total, largest, peak = map(int, done.stdout.split())
    assert total >= 2_000_000_000
    assert total > 15 * largest
    assert peak < largest + 2**30


def test_the_commit_and_the_code_are_logged(tmp_path, caplog):
    """For whoever has to find out later what ran."""
    folder = family.write(tmp_path / "m", next(iter(family.FAMILY.values())))
    with caplog.at_level(logging.INFO, logger="alm2vec_integrations"):
        _ = ours(folder).dim
    assert "modeling_family.py" in caplog.text
    assert "revision none" in caplog.text
