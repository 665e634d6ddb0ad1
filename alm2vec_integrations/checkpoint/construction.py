"""Let transformers load a model whose code was written before transformers 5, without touching either.

Since version 5, `from_pretrained` builds the model on torch's meta device, so whatever a remote class computes in its
constructor (a mel filterbank, a window, a table of positions) has no values, and what is not stored in the checkpoint
gets uninitialised memory in their place. Nothing is said, and the vectors look fine. Here the constructor runs with
real buffers and with parameters on the meta device, as transformers 4 did it, and the buffers are put back afterwards.

Everything is changed from outside, on the classes concerned, for the length of one `with` block.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError
from .buffers import Constructed
from .patching import attribute, wrapped
from .tying import tied_as_in_version_4


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
    from transformers import PreTrainedModel

    constructed = Constructed()
    depth = 0

    def constructor(original: Any, self: nn.Module, *args: Any, **keywords: Any) -> None:
        nonlocal depth
        depth += 1
        constructed.building = True
        if depth == 1:
            constructed.arguments, constructed.keywords = copy.deepcopy((args, keywords))
        try:
            on_meta = wrapped(nn.Module, "register_parameter", partial(_register_on_meta, dtype))
            with same_default_dtype_afterwards(), torch.device("cpu"), on_meta:
                _set_default_dtype_to(torch.float32)
                original(self, *args, **keywords)
                if depth == 1:
                    _finish_as_post_init_would(self)
                    constructed.take_down(self)
        finally:
            depth -= 1
            constructed.building = depth > 0

    def move(original: Any, self: Any, *args: Any, **keywords: Any) -> Any:
        # Where transformers 5 replaces buffers that are not stored by uninitialised memory.
        result = original(self, *args, **keywords)
        constructed.put_back(self, constructed.not_stored)
        return result

    with (
        wrapped(torch, "set_default_dtype", partial(_keep_default_dtype, constructed)),
        wrapped(PreTrainedModel, "_move_missing_keys_from_meta_to_device", move),
        _listened_to(model_class, constructed),
        tied_as_in_version_4(),
        wrapped(model_class, "__init__", constructor),
        # Of the model, and of models inside it that do not override it.
        wrapped(model_class, "initialize_weights", _do_nothing),
        wrapped(PreTrainedModel, "initialize_weights", _do_nothing),
    ):
        yield constructed


def _finish_as_post_init_would(model: nn.Module) -> None:
    # transformers 5 reads what `post_init` sets; classes written for 4 could do without calling it.
    if _is_version_5() and "all_tied_weights_keys" not in vars(model):
        model.post_init()  # type: ignore[operator]


def _is_version_5() -> bool:
    from transformers import PreTrainedModel

    return hasattr(PreTrainedModel, "get_expanded_tied_weights_keys")


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stands in for weight initialisation: a weight that the checkpoint lacks is an error, not a random number."""


@contextlib.contextmanager
def _listened_to(model_class: Any, constructed: Constructed) -> Iterator[None]:
    """Take down what transformers' loader says, behind the back of a class with a `from_pretrained` of its own.

    Such a class expects a model from the one that it overrides, not a model and a report.
    """
    from transformers import PreTrainedModel

    original, here = vars(PreTrainedModel)["from_pretrained"].__func__, threading.get_ident()

    @functools.wraps(original)
    def from_pretrained(cls: Any, *args: Any, output_loading_info: bool = False, **keywords: Any) -> Any:
        if threading.get_ident() != here:
            return original(cls, *args, output_loading_info=output_loading_info, **keywords)
        if cls is not model_class:
            if constructed.building and _is_version_5():
                # It would get uninitialised buffers; transformers refuses too, where it can see it.
                raise CheckpointError(
                    f"the constructor of {model_class.__name__} loads a {cls.__name__} by from_pretrained, which "
                    "transformers 5 does not do inside a constructor: use the transformers version that the "
                    "checkpoint was written for"
                )
            return original(cls, *args, output_loading_info=output_loading_info, **keywords)
        # Sizes that do not fit are named by the caller, who has what is needed for it.
        keywords["ignore_mismatched_sizes"] = True
        model, info = original(cls, *args, output_loading_info=True, **keywords)
        constructed.loaded(model, info)
        return (model, info) if output_loading_info else model

    listening: Any = from_pretrained
    with attribute(PreTrainedModel, "from_pretrained", classmethod(listening)):
        yield


_set_default_dtype = torch.set_default_dtype


@contextlib.contextmanager
def same_default_dtype_afterwards() -> Iterator[None]:
    """Let code set the default dtype for itself: it is the whole process's, which gets it back."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        _set_default_dtype_to(before)


def _set_default_dtype_to(dtype: torch.dtype) -> None:
    if torch.get_default_dtype() is not dtype:  # it is the whole process's: leave it alone where that will do
        _set_default_dtype(dtype)


def _keep_default_dtype(constructed: Constructed, original: Any, dtype: torch.dtype, /) -> None:
    """Stands in for torch's own: transformers sets the dtype of the weights, here and for each model inside the model.

    Buffers would be computed in it, and other threads would work in it. Parameters get their dtype otherwise. The
    checkpoint's code has its reasons to set one, until transformers sets it for the next model or back.
    """
    # 0 is this function, 1 the wrapper that calls it.
    if not str(sys._getframe(2).f_globals.get("__name__")).startswith(("transformers.", "torch.")):
        original(dtype)
    elif constructed.building:
        _set_default_dtype_to(torch.float32)


def _register_on_meta(
    dtype: torch.dtype, register: Any, module: nn.Module, name: str, parameter: nn.Parameter | None
) -> None:
    """A parameter loses its memory as it is registered, so that a model of any size is built at once."""
    register(module, name, parameter)
    if parameter is None:
        return
    wanted = dtype if parameter.is_floating_point() else parameter.dtype
    if not parameter.is_meta or parameter.dtype is not wanted:
        empty = torch.empty_like(parameter, device="meta", dtype=wanted)
        replacement = type(parameter)(empty, requires_grad=parameter.requires_grad)
        replacement.__dict__.update(parameter.__dict__)
        module._parameters[name] = replacement


def construct_again(model_class: type[nn.Module], first: Constructed, dtype: torch.dtype) -> Constructed:
    """What the constructor computes when it is run once more with the arguments of the first time, by itself."""
    with real_buffers(model_class, dtype) as again:
        again.missing = first.missing
        arguments, keywords = copy.deepcopy((first.arguments, first.keywords))
        model_class(*arguments, **keywords)
    return again
