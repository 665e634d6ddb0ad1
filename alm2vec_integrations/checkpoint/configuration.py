"""All that decides which model is loaded and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InputError

RESERVED_KWARGS = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "revision": "revision",
    "token": "token",
    "cache_dir": "cache_dir",
    "local_files_only": "local_files_only",
    "trust_remote_code": "trust_remote_code",
    "config": None,
    "state_dict": None,
    "use_safetensors": None,
    "output_loading_info": None,
    "ignore_mismatched_sizes": None,
}
"""What `model_kwargs` may not hold, and the encoder's own argument for it."""

OTHER_FILES = ("variant", "subfolder", "gguf_file", "from_tf", "from_flax")
"""What of `model_kwargs` would have transformers read other files than those that are verified."""

Verify = Literal["full", "fast", "off"]


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
    dtype: str
    model_kwargs_key: str
    verify: Verify
    token: str | bool | None = field(compare=False, repr=False)
    model_kwargs: Mapping[str, Any] = field(compare=False, repr=False)


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
    """The configuration with device and dtype settled and its keyword arguments made comparable."""
    device = _settle_device(device)
    return Configuration(
        model=model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        trusted=trusted,
        device=device,
        dtype=dtype or _default_dtype(device),
        model_kwargs_key=_canonical(model_kwargs),
        verify=verify,
        token=token,
        model_kwargs=dict(model_kwargs),
    )


def _canonical(value: Any) -> str:
    """Text that is equal for equal keyword arguments, whatever order they are in."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{key!r}: {_canonical(one)}" for key, one in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_canonical, value)) + "]"
    return repr(value)


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
    try:
        torch.empty(1, device=settled).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend has words and errors of its own
        reason = str(error).partition("\n")[0]
        raise InputError(f"device={device!r} cannot be used here: {reason}") from error
    return str(settled)


def _default_dtype(device: str) -> str:
    """bfloat16 on a GPU that has it, else float32."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
