"""See, after every load, that the model is the one in the files. What is wrong is an error; what is odd, a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import CheckpointError
from .buffers import Constructed, alike
from .naming import SAMPLE, hushed, values
from .precision import is_plain
from .weights import StoredWeights

_SHOWN = 5


@dataclass(frozen=True)
class Findings:
    """What a verification did, and what it found odd.

    Attributes:
        checks: in words.
        warnings: in words.
    """

    checks: tuple[str, ...]
    warnings: tuple[str, ...]


def verify_loaded(
    name: str,
    model: nn.Module,
    stored: StoredWeights,
    constructed: Constructed,
    construct: Callable[[], Constructed],
    *,
    missing: frozenset[str],
    full: bool,
    quantized: bool,
) -> Findings:
    """See that every tensor has a finite value and that the files and the model hold the same ones.

    Args:
        name: of the checkpoint, for messages.
        model: as transformers loaded it.
        stored: the files.
        constructed: what the constructor computed while it was loaded.
        construct: runs the constructor once more, outside transformers' loader.
        missing: the names that transformers found in no file, under any name that it knows for them.
        full: look at every value; else at a sample of each tensor.
        quantized: some tensors are of a quantisation library's types; their values are not looked at.

    Raises:
        CheckpointError: a tensor that is missing, without values, or not finite; a buffer that is in no file and is
            not the constructor's.
    """
    checks = ["every tensor has a value"]
    warnings = []
    known = set(model.state_dict(keep_vars=True))
    if made := _nothing_missing(name, model, stored, missing):
        warnings.append(
            f"{len(made)} parameters were made by transformers from others in the files and were not compared: "
            f"{_some(made)}"
        )
    checks.append("every parameter is in the files" + (", or made from what is" if made else ""))
    if unused := sorted(set(stored.tensors) - known):
        warnings.append(f"{len(unused)} tensors in the files are not used by the model: {_some(unused)}")
    tensors = _tensors(model, plain=quantized)
    _finite(name, model, tensors, stored, full=full)
    # Now, since calls may change them.
    _equal(name, {path: tensors[path] for path, _ in model.named_buffers() if path in tensors}, stored, full=full)
    checks.append(f"{_extent(full)} is finite")
    computed = frozenset(constructed.buffers) - frozenset(stored.tensors) | constructed.not_stored
    if scratch := _buffers_as_constructed(name, model, constructed, computed, construct):
        warnings.append(f"{len(scratch)} buffers are not stored and are never the same twice: {_some(scratch)}")
    elif computed:
        checks.append(f"{len(computed)} buffers that are not stored equal the constructor's")
    return Findings(tuple(checks), tuple(warnings))


def verify_placed(name: str, model: nn.Module, stored: StoredWeights, *, full: bool, quantized: bool) -> Findings:
    """See that the parameters in memory, on their device and in their dtype, are what the files hold.

    Args:
        name: of the checkpoint, for messages.
        model: on any device, in any precision.
        stored: the files; their values are compared after the same cast.
        full: compare every value; else a sample of each tensor.
        quantized: some tensors are of a quantisation library's types; these are not compared, and that is said.

    Raises:
        CheckpointError: a value that is not the file's.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = {path: tensor for path, tensor in _tensors(model, plain=quantized).items() if path in parameters}
    _equal(name, tensors, stored, full=full)
    warnings = []
    if aside := sorted((set(parameters) & set(stored.tensors)) - set(tensors)):
        warnings.append(f"{len(aside)} quantised tensors were not compared with the files, such as {_some(aside)}")
    others = " that is not quantised" if quantized else ""
    return Findings((f"{_extent(full)}{others} equals the file's, after the cast",), tuple(warnings))


def verify_mode(name: str, model: nn.Module) -> None:
    """Raise CheckpointError if any module is in training mode."""
    for path, module in model.named_modules():
        if module.training:
            raise CheckpointError(
                f"{name}: {path or 'the model'} ({type(module).__name__}) stays in training mode after eval(), so that "
                "its vectors would change from call to call: its code has to be mended"
            )


def attention_of(model: nn.Module) -> tuple[dict[str, str], list[str]]:
    """The attention implementation of each transformers model inside, and warnings for eager ones."""
    found = {}
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        implementation = getattr(config, "_attn_implementation", None)
        if hasattr(module, "save_pretrained") and implementation:
            found[path or "(itself)"] = str(implementation)
    # The remote class itself often only holds the others.
    inner = {path: value for path, value in found.items() if path != "(itself)"}
    if not inner and any("attention" in type(module).__name__.lower() for module in model.modules()):
        inner = found
    eager = sorted(path for path, value in inner.items() if value == "eager")
    warnings = [f"{path} runs eager attention, which is slower than SDPA and gives the same vectors" for path in eager]
    return found, warnings


def no_meta(name: str, model: nn.Module) -> None:
    """Raise CheckpointError if a tensor is on the meta device, where nothing has a value."""
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
            if off := sorted(places & {"cpu", "disk"}):
                raise CheckpointError(
                    f"{name}: device_map put {path} off the device ({', '.join(off)}), where it cannot be verified: "
                    "give the model a device with room for all of it, or quantise it"
                )
            raise CheckpointError(
                f"{name}: {path} was never given a value (it is on the meta device); no file of the checkpoint holds "
                "it: fetch the checkpoint again"
            )


def _tensors(model: nn.Module, *, plain: bool = False) -> dict[str, torch.Tensor]:
    """What a checkpoint of the model holds, by name; if `plain`, only that whose values can be read."""
    tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    return {path: tensor for path, tensor in tensors.items() if not plain or is_plain(tensor)}


def _extent(full: bool) -> str:
    return "every value" if full else f"a sample of {SAMPLE} values of each tensor"


def _finite(
    name: str, model: nn.Module, tensors: dict[str, torch.Tensor], stored: StoredWeights, *, full: bool
) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for path, tensor in tensors.items():
        # What the code computes is its own business, and stored masks may be infinite on purpose.
        if path not in stored.tensors or not tensor.is_floating_point():
            continue
        seen = values(tensor, full=full)
        wrong = not torch.isfinite(seen).all() if path in parameters else torch.isnan(seen).any()
        if not wrong:
            continue
        file = stored.tensors[path].file
        if torch.isfinite(stored.tensor(path)).all():
            raise CheckpointError(_not_the_files(name, path, file))
        raise CheckpointError(f"{name}: {path} holds NaN or infinity, from {file}: the file is damaged, fetch it again")


def _nothing_missing(name: str, model: nn.Module, stored: StoredWeights, missing: frozenset[str]) -> list[str]:
    """Every parameter is in the files, itself or under the name of one that it shares memory with.

    Returns:
        Those that transformers made from others in the files, and that cannot be found there.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    in_files = {id(parameters[path]) for path in parameters if path in stored.tensors}
    elsewhere = sorted(path for path, parameter in parameters.items() if id(parameter) not in in_files)
    # Classes may tell transformers to be silent about what is missing. It is missing all the same.
    silent = hushed(model)
    gone = [path for path in elsewhere if path in missing or any(pattern.search(path) for pattern in silent)]
    if gone:
        unused = sorted(set(stored.tensors) - set(model.state_dict(keep_vars=True)))
        hint = f" The files hold {len(unused)} that the model does not know: {_some(unused)}." if unused else ""
        raise CheckpointError(
            f"{name}: {len(gone)} parameters are in no file of the checkpoint, and would have random values: "
            f"{_some(gone)}.{hint} Fetch the checkpoint again, or use the transformers version it was written for"
        )
    return elsewhere


def _equal(name: str, tensors: dict[str, torch.Tensor], stored: StoredWeights, *, full: bool) -> None:
    for entry, value in stored.read():
        tensor = tensors.get(entry.name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != entry.shape:
            raise CheckpointError(
                f"{name}: {entry.name} has shape {tuple(tensor.shape)} in the model and {entry.shape} in {entry.file}: "
                "config.json and the weights do not belong together"
            )
        mine, theirs = values(tensor, full=full), values(value, full=full)
        if not torch.equal(mine, theirs.to(mine.device, mine.dtype)):
            raise CheckpointError(_not_the_files(name, entry.name, entry.file))


def _not_the_files(name: str, path: str, file: Path) -> str:
    return (
        f"{name}: {path} in memory is not what {file} holds: the model's code or transformers changed it while "
        "loading; use the transformers version that the checkpoint was written for"
    )


def _buffers_as_constructed(
    name: str, model: nn.Module, first: Constructed, computed: frozenset[str], construct: Callable[[], Constructed]
) -> list[str]:
    """Compare the buffers that no file holds with those of another run of the constructor, by itself.

    Returns:
        Those that come out otherwise in each run, as scratch space does, and so can be compared with the first only.
    """
    actual, again = dict(model.named_buffers()), construct()
    different = [path for path in sorted(computed) if not alike(actual.get(path), again.value(path))]
    if not different:
        return []
    third = construct()
    for path in different:
        if alike(again.value(path), third.value(path)) or not alike(actual.get(path), first.value(path)):
            raise CheckpointError(
                f"{name}: the buffer {path} is not what the model's constructor makes it, and no file holds it: the "
                "vectors would be wrong; use the transformers version that the checkpoint was written for"
            )
    return different


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
