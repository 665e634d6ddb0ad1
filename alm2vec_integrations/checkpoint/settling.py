"""Put a loaded model to work: on its device, in its precision, tried there and compared with float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..errors import ALM2VecError, CheckpointError
from . import probes
from .configuration import Configuration
from .precision import add_casts, in_float32, is_narrow, keep_in_float32, meets_other_dtypes, place, reload_in_float32
from .verification import verify_placed
from .weights import StoredWeights

MOST_DRIFT = 0.01
"""1 - cosine between a probe in lower precision and in float32, above which float32 is used. The parts that stay in
float32 keep a sound model well under it (`alm2vec doctor` prints what yours has)."""


@dataclass(frozen=True)
class Settled:
    """A model where it will work.

    Attributes:
        device: of its parameters.
        dtype: what the cast layers compute in, in words.
        dim: width of its vectors.
        drift: 1 - the smallest cosine between probes in the dtype that was asked for and in float32; None if not
            measured.
        checks: what was verified, in words.
        warnings: what is odd and was let pass, in words.
    """

    device: str
    dtype: str
    dim: int
    drift: float | None
    checks: tuple[str, ...]
    warnings: tuple[str, ...]


class _DriftError(ALM2VecError):
    """Lower precision moves the vectors too much."""


def settle(
    model: nn.Module, name: str, configuration: Configuration, stored: StoredWeights, *, quantized: bool
) -> Settled:
    """Put the model on its device in its precision; where that does not do, in float32 and with a warning.

    Raises:
        CheckpointError: it does not answer, or what is in memory is not what the files hold.
        ModelContractError: it answers in a way that its card rules out.
    """
    if next(model.parameters(), None) is None:
        raise CheckpointError(f"{name}: {type(model).__name__} has no parameters")
    warnings: list[str] = []
    placed_already = quantized or configuration.model_kwargs.get("device_map") is not None
    device = str(next(model.parameters()).device) if placed_already else configuration.device
    dtype = _wanted(configuration)
    checking = configuration.verify != "off"
    reference, drift, partial = None, None, False
    if quantized:
        keep_in_float32(model, stored)
        warnings.append("quantised as model_kwargs or config.json say: not compared with float32")
    else:
        narrows = dtype not in (None, torch.float32) or (dtype is None and is_narrow(model))
        if checking and narrows:
            try:
                reference = _in_float32(model, name, stored, device, move=not placed_already)
                partial = is_narrow(model)
            except ALM2VecError as error:
                warnings.append(
                    f"its layers could not be run in float32 one by one ({error}): float32 is used for all of it"
                )
                dtype = torch.float32
        place(model, None if placed_already else device, dtype, stored)
    if dtype is not torch.float32 or meets_other_dtypes(model):
        add_casts(model)
    checks, uncompared = _compare(model, name, configuration, stored, quantized=quantized)
    if partial:
        checks.append("the float32 to compare with was computed one layer at a time, since the files hold less")
    try:
        answer = probes.probe(model, name, device, sounds=checking)
        drift = None if reference is None else probes.drift(reference, answer)
        if drift is not None and drift > MOST_DRIFT:
            raise _DriftError(f"it moves probes by {drift:.1e} (1 - cosine), past {MOST_DRIFT}")
    except ALM2VecError as error:
        if reference is None:  # the fault is not the precision's
            raise
        warnings.append(f"{_shown(dtype)} does not do: {error}; float32 is used")
        reload_in_float32(model, stored)
        dtype = torch.float32
        checks, uncompared = _compare(model, name, configuration, stored, quantized=quantized)
        answer = probes.probe(model, name, device, sounds=checking)
    shown = _shown(dtype)
    return Settled(
        device=device,
        dtype=f"{shown}, partly quantised" if quantized else shown,
        dim=answer.dim,
        drift=drift,
        checks=(*checks, *answer.checks),
        warnings=(*warnings, *uncompared, *answer.warnings),
    )


def _wanted(configuration: Configuration) -> torch.dtype | None:
    """None leaves every tensor in the dtype that it is stored in."""
    if configuration.dtype == "auto":
        return None
    wanted: torch.dtype = getattr(torch, configuration.dtype)
    return wanted


def _in_float32(model: nn.Module, name: str, stored: StoredWeights, device: str, *, move: bool) -> probes.Answers:
    """The probes' answers with every layer computing in float32, on the device if there is room, else on the CPU."""
    where = _room_for_float32(model, device) if move else device
    place(model, where if move else None, None, stored)
    with in_float32(model):
        return probes.probe(model, name, where, sounds=True)


def _room_for_float32(model: nn.Module, device: str) -> str:
    if torch.device(device).type != "cuda":
        return device
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    # The model as it is stored, and one layer of it in float32.
    return device if free > 1.2 * needed + 4 * 10**9 else "cpu"


def _compare(
    model: nn.Module, name: str, configuration: Configuration, stored: StoredWeights, *, quantized: bool
) -> tuple[list[str], list[str]]:
    """Checks and warnings from holding memory against the files."""
    if configuration.verify == "off":
        return [], []
    found = verify_placed(name, model, stored, full=configuration.verify == "full", quantized=quantized)
    return list(found.checks), list(found.warnings)


def _shown(dtype: torch.dtype | None) -> str:
    return "as stored" if dtype is None else str(dtype).removeprefix("torch.")
