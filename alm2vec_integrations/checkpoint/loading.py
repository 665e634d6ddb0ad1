"""Load a checkpoint through transformers and see that it answers as its card says before anyone relies on it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .. import tiny
from ..errors import ALM2VecError, ALM2VecWarning, CheckpointError, InputError, ModelContractError
from ..instructions import DOC_INSTRUCTION
from .resolving import resolve

logger = logging.getLogger(__name__)

# Squares of components must neither vanish nor overflow in float32 when a vector is normalised.
_SHORTEST, _LONGEST = 1e-9, 1e15

Verify = Literal["full", "fast", "off"]

# transformers copies remote code into a shared folder and imports it: not safe in two threads at once.
_loading = threading.Lock()
_forked_while_loading = False


def _note_fork() -> None:
    global _loading, _forked_while_loading
    # Loading changes transformers and torch for a while, and in the child nobody changes them back.
    _forked_while_loading = _loading.locked()
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)

_warned_of_tiny = False


@dataclass(frozen=True)
class Configuration:
    """All that decides which model is loaded and how; equal configurations share one model.

    `token` and `model_kwargs` do not compare: the first opens a door and changes nothing behind it, the second is
    compared as `model_kwargs_key`.
    """

    model: str
    revision: str | None
    cache_dir: str | None
    local_files_only: bool
    trusted: bool
    device: str
    dtype: str | None
    model_kwargs_key: str
    verify: Verify
    token: str | bool | None = field(compare=False, repr=False)
    model_kwargs: Mapping[str, Any] = field(compare=False, repr=False)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded, and what was checked. `str()` of it is for reading, `as_dict()` for machines.

    Attributes:
        model: the name it was asked for by.
        folder: where its files are.
        revision: their commit, None for a folder of the user's own and for the bundled checkpoint.
        device: where the parameters are.
        dtype: of the parameters.
        parameters: how many there are.
        dim: width of the vectors.
        seconds: from the call to a checked model.
        checks: what was verified, in words.
    """

    model: str
    folder: str
    revision: str | None
    device: str
    dtype: str
    parameters: int
    dim: int
    seconds: float
    checks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain types."""
        return asdict(self) | {"checks": list(self.checks)}

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.as_dict().items() if name != "checks"]
        return "\n".join([*lines, *(f"checked: {check}" for check in self.checks)])


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to encode.

    Attributes:
        model: the remote code's object.
        device: of its parameters, as `encode` is told.
        dim: width of its vectors.
        report: how it was loaded.
    """

    model: Any
    device: str
    dim: int
    report: LoadReport


def load(configuration: Configuration) -> LoadedModel:
    """Find, load and check a model.

    Raises:
        CheckpointError: it cannot be found, is not trusted, or does not load as a model of this kind.
        ModelContractError: it loads, and answers a first call in a way that its card rules out.
    """
    if _forked_while_loading:
        raise CheckpointError(
            f"{configuration.model}: this process was forked while its parent was loading a model, and cannot load "
            "one: load before forking, or start processes by spawn"
        )
    with _loading:
        return _load(configuration)


def _load(configuration: Configuration) -> LoadedModel:
    import torch

    began = time.perf_counter()
    checkpoint = resolve(
        configuration.model,
        revision=configuration.revision,
        token=configuration.token,
        cache_dir=configuration.cache_dir,
        local_files_only=configuration.local_files_only,
        trusted=configuration.trusted,
    )
    _warn_of_tiny(configuration.model)
    model = _from_pretrained(str(checkpoint.folder), configuration)
    checks = ["every tensor has a value"]
    if configuration.verify != "off":
        checks += _check_state(model, configuration)
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise CheckpointError(f"{configuration.model}: {type(model).__name__} has no parameters")
    dim = _probe(model, configuration.model, str(parameter.device))
    checks.append("a text encodes to one finite row")
    report = LoadReport(
        model=configuration.model,
        folder=str(checkpoint.folder),
        revision=checkpoint.revision,
        device=str(parameter.device),
        dtype=str(parameter.dtype).removeprefix("torch."),
        parameters=sum(p.numel() for p in model.parameters()),
        dim=dim,
        seconds=time.perf_counter() - began,
        checks=tuple(checks),
    )
    logger.info("loaded %s at %s in %.1f s", configuration.model, checkpoint.revision or "no revision", report.seconds)
    if torch.device(report.device).type == "cuda":
        torch.cuda.empty_cache()
    return LoadedModel(model, report.device, dim, report)


def _from_pretrained(folder: str, configuration: Configuration) -> Any:
    import torch
    from transformers import AutoModel, __version__

    dtype: Any = "auto" if configuration.dtype == "auto" else torch.float32
    # Renamed in 4.56; the old name is deprecated in 5.
    modern = tuple(int(part) for part in __version__.split(".")[:2]) >= (4, 56)
    keywords: dict[str, Any] = {"dtype" if modern else "torch_dtype": dtype, **configuration.model_kwargs}
    try:
        model = AutoModel.from_pretrained(
            folder, trust_remote_code=True, local_files_only=True, use_safetensors=True, **keywords
        )
    except ALM2VecError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{configuration.model}: transformers {__version__} could not load it: {type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(model, "encode", None)):
        raise CheckpointError(
            f"{configuration.model}: {type(model).__name__} has no encode method, so this is not an ALM2Vec checkpoint"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(f"{configuration.model}: {name} was never given a value (it is on the meta device)")
    if "device_map" not in configuration.model_kwargs:
        model.to(configuration.device)
    model.eval()
    return model


def _check_state(model: Any, configuration: Configuration) -> list[str]:
    import torch

    checks = ["evaluation mode throughout"]
    if configuration.verify == "full":
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"{configuration.model}: {name} holds NaN or infinity")
        checks.append("every value is finite")
    for name, module in model.named_modules():
        if module.training:
            raise CheckpointError(f"{configuration.model}: {name or 'the model'} stays in training mode after eval()")
    return checks


def _probe(model: Any, name: str, device: str) -> int:
    import torch

    keywords = {"task": "document", "instruction": DOC_INSTRUCTION, "normalize": True, "device": device}
    try:
        with torch.no_grad():
            output = model.encode(text=["a dog barks"], **keywords)
    except Exception as error:
        raise CheckpointError(f"{name}: its first call of encode failed: {type(error).__name__}: {error}") from error
    return int(as_rows(output, rows=1, dim=None, model=name).shape[1])


def as_rows(output: Any, *, rows: int, dim: int | None, model: str) -> npt.NDArray[np.float32]:
    """What `encode` returned, as float32 [rows, dim] on the CPU.

    Raises:
        ModelContractError: not floating point, not two-dimensional, another number of rows or width, values that
            are not finite, or a vector of zeros.
    """
    import torch

    try:
        tensor = torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"{model}: encode returned {type(output).__name__}, not a tensor or array ({error})"
        ) from error
    if tensor.ndim != 2 or tensor.shape[0] != rows or (dim is not None and tensor.shape[1] != dim):
        expected = f"[{rows}, {'any width' if dim is None else dim}]"
        raise ModelContractError(f"{model}: encode returned shape {list(tensor.shape)} where {expected} was due")
    if not tensor.is_floating_point():
        raise ModelContractError(f"{model}: encode returned {tensor.dtype}, not floating-point vectors")
    # A copy: the model may use its own memory again for the next call.
    vectors: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32, copy=True).numpy()
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        raise ModelContractError(f"{model}: encode returned NaN or infinity in rows {bad}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not ((lengths > _SHORTEST) & (lengths < _LONGEST)).all():
        raise ModelContractError(
            f"{model}: encode returned vectors of length {lengths.min():.1e} to {lengths.max():.1e}, which cannot be "
            "scaled to length 1 in float32 (all zeros have no direction)"
        )
    return vectors


def configure(
    model: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | None,
    local_files_only: bool,
    trusted: bool,
    device: str | None,
    dtype: str | None,
    model_kwargs: Mapping[str, Any],
    verify: Verify,
) -> Configuration:
    """The configuration with its device settled and its keyword arguments made comparable."""
    return Configuration(
        model=model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        trusted=trusted,
        device=_settle_device(device),
        dtype=dtype,
        model_kwargs_key=json.dumps(dict(model_kwargs), sort_keys=True, default=repr),
        verify=verify,
        token=token,
        model_kwargs=dict(model_kwargs),
    )


def _settle_device(device: str | None) -> str:
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        settled = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r} is not a torch device: {error}") from error
    if settled.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r} was asked for, but torch sees no CUDA device: pass device='cpu' or None")
    if settled.type == "cuda" and settled.index is None:
        settled = torch.device("cuda", torch.cuda.current_device())
    return str(settled)


def _warn_of_tiny(model: str) -> None:
    global _warned_of_tiny
    if model == tiny.NAME and not _warned_of_tiny:
        _warned_of_tiny = True
        warnings.warn(
            f"{tiny.NAME} is a demonstration model with random weights, not ALM2Vec: its vectors have the right shape "
            "and no meaning. For retrieval use cara-ai/ALM2Vec-FT.",
            ALM2VecWarning,
            stacklevel=2,
        )
