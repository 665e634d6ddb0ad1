"""The buffers that a model's code computes and no file holds: which values they get, and from where.

The constructor gives every buffer a value. Then transformers may call `_init_weights` on the module, and code may
count on that: version 5 calls it for every module with a buffer that is not stored, 4.52 only where something is
missing from the files.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError

_SHOWN = 5


@dataclass
class Constructed:
    """What the constructor computed, to be put back after transformers has loaded the weights.

    Attributes:
        buffers: every buffer by its full name, as the constructor leaves it.
        initialised: those to which `_init_weights` then gives other values, with these.
        not_stored: names of the buffers that the class registered with `persistent=False`.
        owners: the class of the module that has a buffer, by the buffer's name.
        unable: why `_init_weights` could not be run on a module, by the module's name.
        missing: what transformers' loader found in no file.
        arguments: that the constructor was called with, as they were before the call.
        keywords: the same.
        info: what transformers' loader said of the model that it loaded.
        building: whether the constructor is running.
    """

    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    initialised: dict[str, torch.Tensor] = field(default_factory=dict)
    not_stored: frozenset[str] = frozenset()
    owners: dict[str, str] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    building: bool = False

    @property
    def absent(self) -> frozenset[str]:
        """Names of the buffers that belong into a file and are in none."""
        return (frozenset(self.buffers) - self.not_stored) & self.missing

    def take_down(self, model: nn.Module) -> None:
        """Note what the constructor has computed, and what `_init_weights` makes of it; weights are on meta."""
        self.buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
        self.not_stored = frozenset(self.buffers) - set(model.state_dict(keep_vars=True))
        self.owners = {name: type(model.get_submodule(_owner(name))).__name__ for name in self.buffers}
        for name in [name for name, buffer in self.buffers.items() if buffer.is_meta]:
            if name in self.not_stored:
                raise CheckpointError(
                    f"{type(model).__name__} leaves {name} without a value: its code builds it from parameters, which "
                    "have none yet when it is constructed"
                )
            del self.buffers[name]  # the files have it
        self.unable = _run_init_weights(model)
        now = dict(model.named_buffers())
        self.initialised = {
            name: now[name].detach().clone()
            for name, buffer in self.buffers.items()
            if name in now and not now[name].is_meta and not alike(now[name], buffer)
        }
        self.put_back(model, frozenset(self.initialised))

    def value(self, name: str) -> torch.Tensor | None:
        """What transformers means a buffer to have where no file holds it; None if it has no value."""
        return (self.initialised if self.is_initialised(name) else self.buffers).get(name)

    def is_initialised(self, name: str) -> bool:
        """Whether `_init_weights` has the last word on a buffer that no file holds."""
        return name in self.initialised and self._is_called_on(_owner(name))

    def _is_called_on(self, module: str) -> bool:
        inside = f"{module}." if module else ""
        return _fills_whatever_is_not_stored() or any(key.startswith(inside) for key in self.missing)

    def put_back(self, model: nn.Module, names: frozenset[str]) -> None:
        """Give the buffers in `names` the values that the code gave them."""
        for name in names:
            module, key = model.get_submodule(_owner(name)), name.rpartition(".")[2]
            now, value = module._buffers[key], self.value(name)
            if value is not None:
                module._buffers[key] = value.to("cpu" if now is None else now.device, copy=True)

    def loaded(self, model: nn.Module, info: dict[str, Any]) -> None:
        """Take note of what transformers' loader says of the model, and complete the model accordingly."""
        self.info.update(info)
        self.missing = frozenset(info.get("missing_keys", ()))
        self.put_back(model, self.absent | (self.not_stored & frozenset(self.initialised)))

    def remarks(self) -> list[str]:
        """What is worth a word, in words."""
        said = []
        unfilled = self.absent - frozenset(self.initialised)
        if unfilled:
            said.append(
                f"{len(unfilled)} buffers are in no file and keep what the code computes: {self._some(unfilled)}"
            )
        if filled := self.absent & frozenset(self.initialised):
            said.append(
                f"{len(filled)} buffers are in no file and have what the code's _init_weights fills them with: "
                f"{self._some(filled)}"
            )
        ambiguous = self.not_stored & frozenset(self.initialised)
        for which, names in (
            ("_init_weights", frozenset(name for name in ambiguous if self.is_initialised(name))),
            ("the constructor", frozenset(name for name in ambiguous if not self.is_initialised(name))),
        ):
            if names:
                said.append(
                    f"{len(names)} buffers get one value from the constructor and another from _init_weights, which "
                    "transformers 5 runs on them and transformers 4 need not, so that the code gives different vectors "
                    f"there; here they have the value from {which}: {self._some(names)}"
                )
        for module, reason in self.unable.items():
            if self._is_called_on(module) and module in map(_owner, self.not_stored | self.absent):
                said.append(
                    f"the buffers of {module or 'the model'} are as the constructor leaves them: _init_weights, which "
                    f"may fill them, fails without weights: {reason}"
                )
        return said

    def _some(self, names: frozenset[str]) -> str:
        shown = [f"{name} ({self.owners[name]})" for name in sorted(names)[:_SHOWN]]
        return ", ".join(shown) + (", …" if len(names) > _SHOWN else "")


def alike(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two buffers have the same values, NaN being like NaN, wherever they are and in whatever dtype."""
    if one is None or other is None:
        return one is other
    one, other = (tensor if tensor.layout is torch.strided else tensor.to_dense() for tensor in (one, other))
    moved = one.to(other.device, other.dtype)
    return moved.shape == other.shape and bool(((moved == other) | ((moved != moved) & (other != other))).all())


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


@torch.no_grad()
def _run_init_weights(model: nn.Module) -> dict[str, str]:
    """Call `_init_weights` on every module with a buffer, as transformers would.

    Returns:
        What it raised, by the module's name.
    """
    from transformers import PreTrainedModel

    unable = {}

    def visit(name: str, module: nn.Module, model: Any) -> None:
        for key, child in module.named_children():
            visit(f"{name}.{key}" if name else key, child, child if isinstance(child, PreTrainedModel) else model)
        if any(buffer is not None for buffer in module._buffers.values()):
            try:
                model._init_weights(module)
            except Exception as error:  # the model's own code may raise anything
                unable[name] = f"{type(error).__name__}: {error}"

    if isinstance(model, PreTrainedModel):
        visit("", model, model)
    return unable


def _fills_whatever_is_not_stored() -> bool:
    """Whether this version calls `_init_weights` for buffers that are not meant to be stored."""
    from transformers import PreTrainedModel

    # 4.52 goes by the keys that it has loaded; later versions by what has no value yet.
    return "loaded_keys" not in inspect.signature(PreTrainedModel._initialize_missing_keys).parameters
