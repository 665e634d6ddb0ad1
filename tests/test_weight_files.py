"""Files that are not what a checkpoint should hold: the message names the tensor or the file, and what to do."""

import json

import checkpoint_family as family
import pytest
import torch
from made_checkpoints import close_to_recorded, make, ours
from safetensors.torch import load_file, save_file

from alm2vec_integrations import CheckpointError, InputError

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def sharded(tmp_path):
    """The family's checkpoint in three shards."""
    folder, weights, weight_map = make(tmp_path / "m"), family.weights(), {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        part = {name: weights[name] for name in list(weights)[number::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def lose(folder):
    (folder / SECOND).unlink()


def dangle(folder):
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("../blobs/gone")


def lose_the_index(folder):
    (folder / INDEX).unlink()


def empty_the_index(folder):
    (folder / INDEX).write_text('{"metadata": {}, "weight_map": {}}')


def strip_the_index(folder):
    (folder / INDEX).write_text('{"metadata": {}}')


def garble_the_index(folder):
    (folder / INDEX).write_text("{")


def lose_all(folder):
    for file in folder.glob("model*.safetensors*"):
        file.unlink()


def contradict(folder):
    tensors = load_file(folder / SECOND)
    save_file(tensors | {"encoder.weight": torch.ones(32, 16)}, folder / SECOND, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose, r"model-00002-of-00003\.safetensors, which model.*index\.json names, is missing: fetch it again"),
        (dangle, r"model-00002-of-00003\.safetensors is a link to \.\./blobs/gone, which is not there: fetch"),
        (
            lose_the_index,
            r"index\.json is missing, .* model-00001-of-00003\.safetensors and the other shards: fetch it",
        ),
        (empty_the_index, r"index\.json: its weight_map does not name a file for each tensor; fetch it again"),
        (strip_the_index, r"index\.json: its weight_map does not name a file for each tensor; fetch it again"),
        (garble_the_index, r"index\.json: cannot be read as an index of shards .*; fetch it again"),
        (lose_all, r"model\.safetensors is missing, and weights are read from safetensors only: fetch it"),
        (contradict, r"00002.*: it holds encoder\.weight with other values than .*00001.*: fetch both again"),
    ],
)
def test_files_that_are_not_there_or_wrong(sharded, spoil, message):
    """Named, with what is wrong and what to do."""
    spoil(sharded)
    with pytest.raises(CheckpointError, match=message):
        _ = ours(sharded).dim


def test_a_tensor_that_is_stored_twice(sharded, tmp_path):
    """Is no harm as long as it is the same."""
    tensors = load_file(sharded / SECOND) | {"encoder.weight": family.weights()["encoder.weight"]}
    save_file(tensors, sharded / SECOND, metadata={"format": "pt"})
    assert close_to_recorded(ours(sharded), family.write_sounds(tmp_path))


@pytest.mark.parametrize(("name", "value"), [("variant", "fp16"), ("subfolder", "sub"), ("gguf_file", "m.gguf")])
def test_keyword_arguments_that_lead_to_other_files(tmp_path, name, value):
    """Would have one file loaded and another verified: refused up front."""
    with pytest.raises(InputError, match=rf"cannot hold {name}=.*weights are read from model\.safetensors, or from"):
        ours(make(tmp_path / "m"), model_kwargs={name: value})
    assert ours(make(tmp_path / "m"), model_kwargs={name: None}).dim


@pytest.mark.parametrize("where", ["config.json", "model_kwargs"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantisation_that_is_none(tmp_path, dtype, where):
    """Is not reported as one, and the drift is measured."""
    folder = make(tmp_path / "m", config={"quantization_config": {}} if where == "config.json" else {})
    keywords = {"model_kwargs": {"quantization_config": {}}} if where == "model_kwargs" else {}
    report = ours(folder, dtype=dtype, **keywords).load_report
    assert (report.dtype, report.warnings) == (dtype, ())
    assert (report.drift is None) is (dtype == "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantisation_that_nobody_knows(tmp_path, dtype):
    """Is not done, which is said."""
    folder = make(tmp_path / "m", config={"quantization_config": {"quant_method": "foo"}})
    report = ours(folder, dtype=dtype).load_report
    assert report.dtype == dtype
    (said,) = report.warnings
    assert "quantised by 'foo', which transformers" in said
    assert (report.drift is None) is (dtype == "float32")


@pytest.mark.parametrize("device_map", ["meta", torch.device("meta"), {"decoder": "cpu", "": "meta"}])
def test_a_device_map_that_gives_no_memory(tmp_path, device_map):
    """Is refused up front: neither the files nor the code are at fault."""
    with pytest.raises(InputError, match=r"device_map=.*: tensors on the meta device have no values; name another"):
        ours(make(tmp_path / "m"), model_kwargs={"device_map": device_map})
