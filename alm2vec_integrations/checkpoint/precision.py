"""Put a model on its device in its compute precision, keeping in float32 what must not lose it.

In code that nobody here has read, the parts that need float32 (the mel front-end, its batch norm, tables of rotary
angles) cannot be found by name. So parameters are cast by the *type* of their module: linear, convolution, embedding
and norm layers other than batch norm. Everything else that is stored stays in float32, and buffers that are not stored
in the dtype in which the code made them. Where the two meet, the input of a layer is cast to the layer's dtype by a
hook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError
from .weights import StoredWeights

_CAST_TYPES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def is_cast(module: nn.Module) -> bool:
    """Whether the module's own parameters may leave float32."""
    # What a parametrisation computes is in the dtype of its own parameters.
    if isinstance(module, _BATCH_NORM) or nn.utils.parametrize.is_parametrized(module):
        return False
    # transformers' models bring norm classes of their own, each by another name.
    is_named_norm = type(module).__name__.endswith(("RMSNorm", "LayerNorm")) and not any(module.children())
    return isinstance(module, _CAST_TYPES) or is_named_norm


def place(model: nn.Module, device: str | None, dtype: torch.dtype | None, stored: StoredWeights) -> None:
    """Move parameters and buffers to `device`, one at a time, in their dtypes.

    Args:
        model: its memory may still be the checkpoint's files.
        device: where to; None leaves every tensor where it is.
        dtype: of the modules that are cast; None leaves them in the dtype that they have, the widest if several. Batch
            norms and stored buffers are in float32 either way.
        stored: the files.
    """
    moved: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in moved:
                wanted = _dtype_of(module, parameter, dtype)
                tensor = parameter.data.to(device or parameter.device, wanted)
                # A Parameter of its own for each: the CPU's copy goes as soon as its twin is there.
                placed = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
                placed.__dict__.update(parameter.__dict__)
                moved[id(parameter)] = placed
                moved[id(placed)] = placed
            module._parameters[name] = moved[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                full = f"{path}.{name}" if path else name
                held = full in stored.tensors and name not in module._non_persistent_buffers_set
                own = torch.float32 if held and buffer.is_floating_point() else buffer.dtype
                module._buffers[name] = buffer.to(device or buffer.device, own)


def add_casts(model: nn.Module) -> None:
    """Make every layer cast its floating-point inputs to the dtype of its own parameters."""
    for module in model.modules():
        if _is_layer(module):
            module.register_forward_pre_hook(_cast_inputs, with_kwargs=True)


def _is_layer(module: nn.Module) -> bool:
    known = is_cast(module) or isinstance(module, _BATCH_NORM) or nn.utils.parametrize.is_parametrized(module)
    return known and _own_dtype(module) is not None


def meets_other_dtypes(model: nn.Module) -> bool:
    """Whether layers in float32 may be given something else, from a buffer that the code made in another dtype."""
    return any(buffer.is_floating_point() and buffer.dtype is not torch.float32 for buffer in model.buffers())


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """While this lasts, every layer computes in float32, whatever its parameters are stored in.

    A layer's parameters are widened when it is entered and given back when it is left, so that no more than one
    layer's worth of memory is added.
    """
    handles = []
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if p.is_floating_point() and p.dtype is not torch.float32]
        if own or _is_layer(module):
            narrow: dict[str, nn.Parameter | None] = {}
            handles.append(module.register_forward_pre_hook(partial(_widen, narrow), with_kwargs=True))
            handles.append(module.register_forward_hook(partial(_give_back, narrow), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widen(
    narrow: dict[str, nn.Parameter | None], module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    narrow.update(module._parameters)
    for name, parameter in narrow.items():
        if parameter is not None and parameter.is_floating_point():
            module._parameters[name] = nn.Parameter(parameter.data.float(), requires_grad=False)
    wide = torch.float32
    return tuple(_cast(value, wide) for value in args), {k: _cast(v, wide) for k, v in keywords.items()}


def _give_back(narrow: dict[str, nn.Parameter | None], module: nn.Module, *_: Any) -> None:
    module._parameters.update(narrow)
    narrow.clear()


def reload_in_float32(model: nn.Module, stored: StoredWeights) -> None:
    """Give every parameter, where it is, the value in the files in float32.

    Raises:
        CheckpointError: a parameter is not in the files under its own name.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    held = {id(parameter) for name, parameter in parameters.items() if name in stored.tensors}
    for name, parameter in parameters.items():
        if id(parameter) not in held and parameter.is_floating_point() and parameter.dtype is not torch.float32:
            raise CheckpointError(f'{name} cannot be read again in float32: pass dtype="float32" from the start')
    for entry, value in stored.read():
        target = parameters.get(entry.name)
        if target is not None and target.is_floating_point():
            target.data = value.to(target.device, torch.float32)


def as_stored(model: nn.Module, stored: StoredWeights) -> list[str]:
    """Give what transformers has cast to the main dtype the values and the dtype that the files hold.

    Returns:
        What else it gave values to, in words.
    """
    tensors = model.state_dict(keep_vars=True)
    given = []
    for entry in stored.tensors.values():
        tensor = tensors.get(entry.name)
        if tensor is None:
            continue
        # Batch norms and tables compute in float32.
        wanted = torch.float32 if entry.dtype is torch.float64 and not _is_parameter(tensor) else entry.dtype
        if tensor.is_meta and _is_parameter(tensor) and not hasattr(model, "hf_device_map"):
            value = nn.Parameter(stored.tensor(entry.name), requires_grad=tensor.requires_grad)
            for module in model.modules():
                module._parameters.update({name: value for name, p in module._parameters.items() if p is tensor})
            given.append(entry.name)
        elif wanted is not None and tensor.dtype is not wanted:
            tensor.data = stored.tensor(entry.name).to(tensor.device, wanted)
    if not given:
        return []
    return [
        f"{len(given)} parameters had no value after the class's own from_pretrained and got the files': {given[0]}"
    ]


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def is_narrow(model: nn.Module) -> bool:
    """Whether any parameter has less than float32's precision."""
    return any(p.is_floating_point() and p.element_size() < 4 for p in model.parameters())


def keep_in_float32(model: nn.Module, stored: StoredWeights) -> None:
    """Give batch norms, and buffers and whatever else is not cast and is stored in float32, the files' values again.

    For a model that transformers has put into a lower precision as a whole, as it does around quantised layers.
    """
    kept: dict[str, torch.Tensor] = {}
    persistent = set(model.state_dict(keep_vars=True))
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {**module._buffers, **({} if is_cast(module) else module._parameters)}
        for name, tensor in own.items():
            # Quantised layers may keep scales in buffers, stored in the dtype that their kernels want.
            wide = isinstance(module, _BATCH_NORM) or stored.dtype(prefix + name) is torch.float32
            if tensor is None or not wide or prefix + name not in persistent:
                continue
            if is_plain(tensor) and tensor.is_floating_point():
                kept[prefix + name] = tensor
    for entry, value in stored.read():
        target = kept.get(entry.name)
        if target is not None:
            target.data = value.to(target.device, torch.float32)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its values are its memory; quantisation libraries bring types of their own for those that are not."""
    return type(tensor) in (torch.Tensor, nn.Parameter)


def bytes_of(tensor: torch.Tensor) -> int:
    """What the tensor takes in memory, a quantised one with its scales."""
    if is_plain(tensor) or not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(bytes_of(getattr(tensor, name)) for name in names)


def dtypes_by_part(model: nn.Module) -> dict[str, str]:
    """The dtypes of each direct part's parameters, with counts, as text."""
    parts = {}
    for name, part in [("", model), *model.named_children()]:
        counts: Counter[str] = Counter()
        for parameter in part.parameters(recurse=bool(name)):
            kind = "" if is_plain(parameter) else f"{type(parameter).__name__} for "
            counts[kind + str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        if counts:
            parts[name or "(itself)"] = ", ".join(f"{dtype} {number:,}" for dtype, number in counts.most_common())
    return parts


def _dtype_of(module: nn.Module, parameter: nn.Parameter, dtype: torch.dtype | None) -> torch.dtype:
    if not parameter.is_floating_point():
        return parameter.dtype
    if dtype is None and is_cast(module):
        # A layer computes in one dtype: the widest that its parameters are stored in.
        own = (p.dtype for p in module.parameters(recurse=False) if p.is_floating_point())
        return max(own, key=lambda candidate: candidate.itemsize)
    if dtype is None:
        return torch.float32 if isinstance(module, _BATCH_NORM) else parameter.dtype
    return dtype if is_cast(module) else torch.float32


def _cast_inputs(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    dtype = _own_dtype(module)
    assert dtype is not None  # noqa: S101 - else there were no hook
    if all(_fits(value, dtype) for value in args) and all(_fits(value, dtype) for value in keywords.values()):
        return None
    return tuple(_cast(value, dtype) for value in args), {k: _cast(v, dtype) for k, v in keywords.items()}


def _own_dtype(module: nn.Module) -> torch.dtype | None:
    """Of its parameters, or of those that they are computed from."""
    for parameters in (module._parameters.values(), module.parameters()):
        for parameter in parameters:
            if parameter is not None and parameter.is_floating_point():
                return parameter.dtype
    return None


def _fits(value: Any, dtype: torch.dtype) -> bool:
    return not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype is dtype


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value if _fits(value, dtype) else value.to(dtype)
