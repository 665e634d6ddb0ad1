"""Let transformers load a model whose code was written before transformers 5, without touching either.

Since version 5, `from_pretrained` builds the model on torch's meta device, so whatever a remote class computes in its
constructor (a mel filterbank, a window, a table of positions) has no values, and what is not stored in the checkpoint
gets uninitialised memory in their place. Nothing is said, and the vectors look fine. Here the constructor runs with
real buffers and with parameters on the meta device, as transformers 4 did it, and the buffers are put back afterwards.

Everything is changed from outside, on the classes concerned, for the length of one `with` block.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError

_LISTS = (list, tuple, set, frozenset)


@dataclass
class Constructed:
    """What the constructor computed, to be put back after transformers has loaded the weights.

    Attributes:
        buffers: every buffer by its full name; those that are not stored in a checkpoint are `not_stored`.
        not_stored: names of the buffers that the class registered with `persistent=False`.
    """

    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    not_stored: frozenset[str] = frozenset()

    def put_back(self, model: nn.Module, names: frozenset[str]) -> None:
        """Give the buffers in `names` the values that the constructor gave them."""
        for name in names:
            owner, _, key = name.rpartition(".")
            module = model.get_submodule(owner)
            now = module._buffers[key]
            module._buffers[key] = self.buffers[name].to("cpu" if now is None else now.device, copy=True)


@contextlib.contextmanager
def real_buffers(model_class: type[nn.Module], dtype: torch.dtype) -> Iterator[Constructed]:
    """While this lasts, `model_class(...)` has real buffers and has its parameters on the meta device in `dtype`.

    Not safe in two threads at once: the caller holds a lock.

    Args:
        model_class: the remote class; its attributes are as before when the block ends.
        dtype: of the floating-point parameters, whatever a nested configuration asks for.

    Yields:
        What the outermost constructor computed, filled in when it returns.
    """
    constructed = Constructed()
    original = model_class.__init__
    depth = 0

    @functools.wraps(original)
    def constructor(self: nn.Module, *args: Any, **keywords: Any) -> None:
        nonlocal depth
        depth += 1
        try:
            with _default_dtype(torch.float32), torch.device("cpu"), _parameters_on_meta(dtype):
                original(self, *args, **keywords)
        finally:
            depth -= 1
        if depth == 0:
            _finish_as_post_init_would(self)
            _take_down(self, constructed)

    with (
        _attribute(model_class, "__init__", constructor),
        _attribute(model_class, "initialize_weights", _do_nothing),
        _tied_keys_as_lists(),
    ):
        yield constructed


def construct(model_class: type[nn.Module], config: Any, dtype: torch.dtype) -> nn.Module:
    """A model with real buffers and meta parameters, built without transformers' loader."""
    with real_buffers(model_class, dtype):
        return model_class(config)


def _take_down(model: nn.Module, constructed: Constructed) -> None:
    constructed.buffers.update({name: buffer.detach().clone() for name, buffer in model.named_buffers()})
    stored = set(model.state_dict(keep_vars=True))
    constructed.not_stored = frozenset(constructed.buffers) - stored
    on_meta = [name for name, buffer in constructed.buffers.items() if buffer.is_meta]
    for name in on_meta:
        if name in constructed.not_stored:
            raise CheckpointError(
                f"{type(model).__name__} leaves {name} without a value: its code builds it from parameters, which "
                "have none yet when it is constructed"
            )
        del constructed.buffers[name]  # the files have it


def _finish_as_post_init_would(model: nn.Module) -> None:
    # transformers 5 reads what `post_init` sets; classes written for 4 could do without calling it.
    is_version_5 = hasattr(model, "get_expanded_tied_weights_keys")
    if is_version_5 and not hasattr(model, "all_tied_weights_keys"):
        model.post_init()  # type: ignore[operator]


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stands in for weight initialisation: a weight that the checkpoint lacks is an error, not a random number."""


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for a while, then restore exactly what `owner` itself had."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    if before is dtype:  # it is the whole process's: leave it alone where that will do
        yield
        return
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _parameters_on_meta(dtype: torch.dtype) -> Iterator[None]:
    """Parameters lose their memory as they are registered, so that a model of any size is built at once."""
    register = nn.Module.register_parameter
    loader = threading.get_ident()

    def register_on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(self, name, parameter)
        if parameter is None or threading.get_ident() != loader:
            return  # other threads build their modules as ever
        wanted = dtype if parameter.is_floating_point() else parameter.dtype
        if not parameter.is_meta or parameter.dtype is not wanted:
            empty = torch.empty_like(parameter, device="meta", dtype=wanted)
            replacement = type(parameter)(empty, requires_grad=parameter.requires_grad)
            replacement.__dict__.update(parameter.__dict__)
            self._parameters[name] = replacement

    with _attribute(nn.Module, "register_parameter", register_on_meta):
        yield


@contextlib.contextmanager
def _tied_keys_as_lists() -> Iterator[None]:
    """Let transformers 5 pass over `_tied_weights_keys` in the form of a list, which it had in transformers 4."""
    from transformers import PreTrainedModel

    original = getattr(PreTrainedModel, "get_expanded_tied_weights_keys", None)
    if original is None:
        yield
        return

    @functools.wraps(original)
    def expanded(self: Any, *args: Any, **keywords: Any) -> Any:
        return {} if isinstance(self._tied_weights_keys, _LISTS) else original(self, *args, **keywords)

    with _attribute(PreTrainedModel, "get_expanded_tied_weights_keys", expanded):
        yield


def tie_what_lists_declare(model: nn.Module, stored: frozenset[str]) -> list[str]:
    """Give the parameters that a class lists as tied, and that no file holds, the input embedding's values.

    Returns:
        Their names.
    """
    tied = []
    for path, module in model.named_modules():
        keys = getattr(module, "_tied_weights_keys", None)
        table = _input_table(module)
        if not isinstance(keys, _LISTS) or table is None:
            continue
        for key in keys:
            name = f"{path}.{key}" if path else key
            owner, _, attribute = name.rpartition(".")
            parameter = dict(model.named_parameters(remove_duplicate=False)).get(name)
            held = {id(p) for n, p in model.named_parameters(remove_duplicate=False) if n in stored}
            if parameter is not None and id(parameter) not in held and parameter.shape == table.shape:
                model.get_submodule(owner)._parameters[attribute] = table
                tied.append(name)
    return tied


def _input_table(module: Any) -> nn.Parameter | None:
    try:
        table = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "weight", None)
