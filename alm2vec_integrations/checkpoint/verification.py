"""See, after every load, that the model is the one in the files. What is wrong is an error; what is odd, a warning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..errors import CheckpointError
from .construction import Constructed
from .weights import StoredWeights

_SAMPLE = 4096
"""Values of each tensor that "fast" compares: 16 KiB in float32."""

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
    *,
    missing: frozenset[str],
    full: bool,
    comparable: bool,
) -> Findings:
    """See that every tensor has a finite value and that the files and the model hold the same ones.

    Args:
        name: of the checkpoint, for messages.
        model: as transformers loaded it.
        stored: the files.
        constructed: by a run of the constructor outside transformers' loader.
        missing: the names that transformers found in no file, under any name that it knows for them.
        full: look at every value; else at a sample of each tensor.
        comparable: False where the model's tensors are not the files' (quantised weights).

    Raises:
        CheckpointError: a tensor that is missing, without values, or not finite; a buffer that is in no file and is
            not the constructor's.
    """
    no_meta(name, model)
    checks = ["every tensor has a value"]
    warnings = []
    if comparable:
        known = set(model.state_dict(keep_vars=True))
        renamed = _nothing_missing(name, model, stored, known, missing)
        checks.append("every parameter is in the files")
        if renamed:
            warnings.append(
                f"{len(renamed)} parameters are stored under names that transformers translates and were not compared, "
                f"such as {_some(renamed)}"
            )
        if unused := sorted(set(stored.tensors) - known):
            warnings.append(f"{len(unused)} tensors in the files are not used by the model: {_some(unused)}")
    else:
        warnings.append("the values in memory were not compared with the files: they are quantised")
    _finite(name, _tensors(model), stored, full=full)
    checks.append(f"{_extent(full)} is finite")
    _buffers_as_constructed(name, model, constructed)
    if constructed.not_stored:
        checks.append(f"{len(constructed.not_stored)} buffers that are not stored equal the constructor's")
    return Findings(tuple(checks), tuple(warnings))


def verify_placed(name: str, model: nn.Module, stored: StoredWeights, *, full: bool) -> str:
    """See that what is in memory, on its device and in its dtype, is what the files hold.

    Args:
        name: of the checkpoint, for messages.
        model: on any device, in any precision.
        stored: the files; their values are compared after the same cast.
        full: compare every value; else a sample of each tensor.

    Returns:
        What was checked, in words.

    Raises:
        CheckpointError: a value that is not the file's.
    """
    _equal(name, _tensors(model), stored, full=full)
    return f"{_extent(full)} equals the file's, after the cast"


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
    eager = sorted(path for path, value in inner.items() if value == "eager")
    warnings = [f"{path} runs eager attention, which is slower than SDPA and gives the same vectors" for path in eager]
    return found, warnings


def no_meta(name: str, model: nn.Module) -> None:
    """Raise CheckpointError if a tensor is on the meta device, where nothing has a value."""
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(
                f"{name}: {path} was never given a value (it is on the meta device); no file of the checkpoint holds it"
            )


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _extent(full: bool) -> str:
    return "every value" if full else f"a sample of {_SAMPLE} values of each tensor"


def _values(tensor: torch.Tensor, full: bool) -> torch.Tensor:
    """What is looked at of a tensor: all of it, or values at equal distances."""
    flat = tensor.detach().reshape(-1)
    return flat if full else flat[:: max(1, flat.numel() // _SAMPLE)]


def _finite(name: str, tensors: dict[str, torch.Tensor], stored: StoredWeights, *, full: bool) -> None:
    for path, tensor in tensors.items():
        # What the code computes may be infinite on purpose, as masks are.
        if path in stored.tensors and tensor.is_floating_point() and not torch.isfinite(_values(tensor, full)).all():
            raise CheckpointError(
                f"{name}: {path} holds NaN or infinity, from {stored.tensors[path].file}: the file is damaged, "
                "fetch it again"
            )


def _nothing_missing(
    name: str, model: nn.Module, stored: StoredWeights, known: set[str], missing: frozenset[str]
) -> list[str]:
    """Every parameter is in the files, itself or under the name of one that it shares memory with.

    Returns:
        Those that transformers found there under another name.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    in_files = {id(parameters[path]) for path in parameters if path in stored.tensors}
    elsewhere = sorted(path for path, parameter in parameters.items() if id(parameter) not in in_files)
    gone = [path for path in elsewhere if path in missing]
    if gone:
        unused = sorted(set(stored.tensors) - known)
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
        mine, theirs = _values(tensor, full), _values(value, full)
        if not torch.equal(mine, theirs.to(mine.device, mine.dtype)):
            raise CheckpointError(
                f"{name}: {entry.name} in memory is not what {entry.file} holds: the model's code or transformers "
                "changed it while loading; use the transformers version that the checkpoint was written for"
            )


def _buffers_as_constructed(name: str, model: nn.Module, constructed: Constructed) -> None:
    buffers = dict(model.named_buffers())
    for path in sorted(constructed.not_stored):
        expected = constructed.buffers[path]
        actual = buffers.get(path)
        if actual is None or not torch.equal(actual.to(expected.device, expected.dtype), expected):
            raise CheckpointError(
                f"{name}: the buffer {path} is not what the model's constructor makes it, and no file holds it: the "
                "vectors would be wrong; use the transformers version that the checkpoint was written for"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
