"""Buffers that code computes and no file holds: whose values they get, on which version."""

import itertools
import re

import checkpoint_family as family
import numpy as np
import pytest
import torch
from made_checkpoints import VERSION, close_to_recorded, make, ours

from alm2vec_integrations import CheckpointError

INITIALISES = "if isinstance(module, (nn.Linear"
TABLES = """if isinstance(module, FrontEnd):
            centres = torch.arange(16.0) * (200 / 15)
            bins = torch.arange(201.0)
            module.filterbank.copy_((1 - (bins[:, None] - centres[None]).abs() / 20).clamp(min=0))
            module.window.copy_(torch.hann_window(400))
        """


@pytest.fixture
def sounds(tmp_path):
    return family.write_sounds(tmp_path)


def initialising(statement):
    """An edit: what `_init_weights` also does to the front-end."""
    return (INITIALISES, f"if isinstance(module, FrontEnd):\n            {statement}\n        {INITIALISES}")


def placeholders(kind, *, persistent):
    """A front-end that leaves its tables to `_init_weights`."""
    stored = "" if persistent else ", persistent=False"
    return (
        f'        self.register_buffer("filterbank", torch.{kind}(201, 16){stored})\n'
        f'        self.register_buffer("window", torch.{kind}(400){stored})\n'
    )


class TestFilledByInitWeights:
    """`_init_weights` runs without weights, and may fill what no file holds."""

    @pytest.mark.parametrize("kind", ["ones", "zeros", "empty"])
    def test_buffers_that_should_be_stored_and_are_not(self, tmp_path, sounds, kind):
        """Are filled on every version, as by transformers itself, and that is said."""
        code = {"front_end": placeholders(kind, persistent=True)}
        folder = make(tmp_path / "m", code=code, edits=[(INITIALISES, TABLES + INITIALISES)])
        encoder = ours(folder)
        assert close_to_recorded(encoder, sounds, most=1e-6)
        said = encoder.load_report.warnings
        if kind == "empty":  # the memory may be that of an earlier model's table, which then needs no filling
            assert all("buffers are in no file and " in one for one in said)
            assert sorted(re.findall(r"front_end\.\w+", " ".join(said))) == ["front_end.filterbank", "front_end.window"]
        else:
            (one,) = said
            assert one.startswith("2 buffers are in no file and have what the code's _init_weights fills them with: ")
            assert "front_end.filterbank (FrontEnd), front_end.window (FrontEnd)" in one

    def test_as_stock_transformers_fills_them(self, tmp_path, sounds):
        """Weights apart, which some versions make up once more in a module that lacks something."""
        code = {"front_end": placeholders("ones", persistent=True)}
        weightless = (".weight.data.normal_(0.0, 0.02)", ".weight.numel()")
        folder = make(tmp_path / "m", code=code, edits=[(INITIALISES, TABLES + INITIALISES), weightless])
        theirs, mine = family.card_vectors(family.stock(folder), sounds), family.our_vectors(ours(folder), sounds)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)

    def test_beside_a_buffer_that_is_not_meant_to_be_stored(self, tmp_path, sounds):
        """A module that lacks something is initialised as a whole, on every version."""
        code = {"front_end": placeholders("ones", persistent=True).replace("(400))", "(400), persistent=False)")}
        folder = make(tmp_path / "m", code=code, edits=[(INITIALISES, TABLES + INITIALISES)])
        assert close_to_recorded(ours(folder), sounds, most=1e-6)

    @pytest.mark.skipif(VERSION < (4, 57), reason="transformers 4.52 does not fill buffers there")
    @pytest.mark.parametrize("kind", ["ones", "zeros", "empty"])
    def test_buffers_that_are_not_meant_to_be_stored(self, tmp_path, sounds, kind):
        """Have what it fills them with, not what the constructor puts there until then."""
        code = {"front_end": placeholders(kind, persistent=False)}
        assert close_to_recorded(
            ours(make(tmp_path / "m", code=code, edits=[(INITIALISES, TABLES + INITIALISES)])), sounds
        )

    def test_code_that_means_another_value_on_each_version(self, tmp_path, sounds):
        """The constructor's on transformers 4, that of `_init_weights` on 5: nobody can know, and it is said."""
        edit = initialising("module.window.data.fill_(1.0)")
        encoder = ours(make(tmp_path / "m", code={"front_end": family.PURE_TORCH}, edits=[edit]))
        (said,) = encoder.load_report.warnings
        assert "the code gives different vectors" in said
        if VERSION >= (4, 57):
            assert said.endswith("here they have the value from _init_weights: front_end.window (FrontEnd)")
            assert (encoder._acquire().loaded().model.front_end.window == 1).all()
        else:
            assert said.endswith("here they have the value from the constructor: front_end.window (FrontEnd)")
            assert close_to_recorded(encoder, sounds)

    @pytest.mark.parametrize("statement", ["module.window.mul_(1)", "module.window.copy_(torch.hann_window(400))"])
    def test_the_same_value_twice(self, tmp_path, sounds, statement):
        """Is nothing to speak of."""
        encoder = ours(make(tmp_path / "m", code={"front_end": family.PURE_TORCH}, edits=[initialising(statement)]))
        assert close_to_recorded(encoder, sounds)
        assert encoder.load_report.warnings == ()

    @pytest.mark.parametrize("persistent", [True, False])
    def test_init_weights_that_needs_weights(self, tmp_path, sounds, persistent):
        """Cannot run without them: the buffers stay as they were constructed, and it is said where it matters."""
        front_end = family.PURE_TORCH.replace(", persistent=False", "") if persistent else family.PURE_TORCH
        edit = initialising("self.encoder.weight.sum().item()")
        encoder = ours(make(tmp_path / "m", code={"front_end": front_end}, edits=[edit]))
        assert close_to_recorded(encoder, sounds)
        said = any("_init_weights, which may fill them, fails" in one for one in encoder.load_report.warnings)
        assert said is (persistent or VERSION >= (4, 57))


class TestVerification:
    def test_a_constructor_that_computes_otherwise_while_loading(self, tmp_path):
        """What it computes twice by itself is what it means; the model has something else."""
        first = "torch.hann_window(400) * (2 if FrontEnd.runs == 1 else 1)"
        front_end = family.PURE_TORCH.replace("torch.hann_window(400)", first)
        code = {"front_end": "        FrontEnd.runs = getattr(FrontEnd, 'runs', 0) + 1\n" + front_end}
        with pytest.raises(CheckpointError, match=r"the buffer front_end\.window is not what"):
            _ = ours(make(tmp_path / "m", code=code)).dim


class TestOddBuffers:
    """What the code makes is what it gets to work with."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
    @pytest.mark.parametrize("persistent", [True, False])
    @pytest.mark.parametrize(
        ("made", "used"),
        [
            ("filterbank.double()", "(power.double() @ self.filterbank).float()"),
            ("filterbank.bfloat16()", "(power.bfloat16() @ self.filterbank).float()"),
            ("filterbank.to(torch.complex64)", "(power @ self.filterbank.real)"),
            ("filterbank.to_sparse()", "(power @ self.filterbank.to_dense())"),
            ("filterbank.double()", "(power.double() @ self.filterbank)"),
        ],
        ids=["float64", "bfloat16", "complex", "sparse", "float64 passed on"],
    )
    def test_their_dtype_and_layout(self, tmp_path, sounds, made, used, persistent, dtype):
        """Stay as they are, since code may count on them."""
        front_end = family.PURE_TORCH.replace('"{filterbank}", filterbank', f'"{{filterbank}}", {made}')
        if persistent:
            front_end = front_end.replace(", persistent=False", "")
        folder = make(tmp_path / "m", code={"front_end": front_end}, edits=[("(power @ self.filterbank)", used)])
        assert close_to_recorded(ours(folder, dtype=dtype), sounds)

    @pytest.mark.parametrize("made", ["torch.rand(4, 4).to_sparse()", "torch.rand(4, 4).double()"])
    def test_scratch_space(self, tmp_path, sounds, made):
        """Of any kind, is compared with the run that loaded it."""
        registered = f"        self.register_buffer('scratch', {made}, persistent=False)\n"
        encoder = ours(make(tmp_path / "m", code={"constructor": registered + family.POST_INIT}))
        assert close_to_recorded(encoder, sounds)
        assert any("never the same twice: scratch" in said for said in encoder.load_report.warnings)


class TestConstructors:
    """What runs in them."""

    @pytest.mark.skipif(VERSION < (5, 0), reason="transformers 4 loads models inside constructors")
    def test_a_model_that_is_loaded_inside_a_constructor(self, tmp_path):
        """Would have uninitialised buffers."""
        (tmp_path / "inner").mkdir()
        line = f"        Qwen2Model.from_pretrained({str(tmp_path / 'inner')!r})\n"
        folder = make(tmp_path / "m", code={"constructor": line + family.POST_INIT})
        with pytest.raises(CheckpointError, match="loads a Qwen2Model by from_pretrained"):
            _ = ours(folder).dim

    def test_a_default_dtype_that_code_sets(self, tmp_path, sounds):
        """Is what its buffers are computed in, and nobody else's afterwards."""
        table = family.PURE_TORCH.replace(
            "torch.hann_window(400)", "torch.hann_window(400) * (torch.get_default_dtype() is torch.float64)"
        )
        front_end = (
            f"        torch.set_default_dtype(torch.float64)\n{table}        torch.set_default_dtype(torch.float32)\n"
        )
        assert close_to_recorded(ours(make(tmp_path / "m", code={"front_end": front_end})), sounds)
        assert torch.get_default_dtype() is torch.float32

    @pytest.mark.parametrize("before", [torch.float32, torch.float64])
    @pytest.mark.parametrize(
        ("where", "dtype"),
        [
            *itertools.product(["constructor", "after", "import"], ["bfloat16", "float64"]),
            ("before", "float64"),  # a filterbank in bfloat16 is one that no version runs
        ],
    )
    def test_a_default_dtype_that_code_leaves_behind(self, tmp_path, sounds, before, dtype, where):
        """Is the constructor's own: the vectors are right, and the process has the default dtype that it had."""
        line = f"        torch.set_default_dtype(torch.{dtype})\n"
        parts = {
            "front_end": line * (where == "before") + family.PURE_TORCH + line * (where == "after"),
            "constructor": (line if where == "constructor" else "") + family.POST_INIT,
        }
        edits = [("class FamilyConfig(P", f"{line.strip()}\n\n\nclass FamilyConfig(P")] if where == "import" else []
        folder = make(tmp_path / "m", code=parts, edits=edits)
        torch.set_default_dtype(before)
        try:
            vectors = ours(folder).encode("a dog barks", task="document")
            assert torch.get_default_dtype() is before
        finally:
            torch.set_default_dtype(torch.float32)
        if before is torch.float32:
            assert close_to_recorded(ours(folder), sounds, most=1e-3)
        assert np.isfinite(vectors).all()

    @pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
    def test_a_default_dtype_that_code_leaves_behind_as_it_fails(self, tmp_path, dtype):
        """Is not the process's either."""
        constructor = f"        torch.set_default_dtype(torch.{dtype})\n        raise RuntimeError('in the middle')\n"
        try:
            with pytest.raises(CheckpointError, match="in the middle"):
                _ = ours(make(tmp_path / "m", code={"constructor": constructor})).dim
            assert torch.get_default_dtype() is torch.float32
        finally:
            torch.set_default_dtype(torch.float32)
