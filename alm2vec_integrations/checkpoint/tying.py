"""Tied weights as transformers 4 had them: listed, tied by methods without arguments, and looked up after loading."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from .patching import attribute, wrapped

_LISTS = (list, tuple, set, frozenset)


@contextlib.contextmanager
def tied_as_in_version_4() -> Iterator[None]:
    """Let classes tie weights as in transformers 4, where `tie_weights` took no arguments and needed no `post_init`."""
    from transformers import PreTrainedModel

    if not hasattr(PreTrainedModel, "get_expanded_tied_weights_keys"):
        yield
        return
    seen = set()
    with contextlib.ExitStack() as overrides:

        def constructor(original: Any, self: Any, *args: Any, **keywords: Any) -> None:
            own = type(self)
            if own not in seen:
                seen.add(own)
                if not _takes_keywords(own.tie_weights):
                    overrides.enter_context(wrapped(own, "tie_weights", _without_keywords))
            original(self, *args, **keywords)

        with (
            wrapped(PreTrainedModel, "get_expanded_tied_weights_keys", _nothing_for_lists),
            wrapped(PreTrainedModel, "__init__", constructor),
            attribute(PreTrainedModel, "all_tied_weights_keys", {}),
        ):
            yield


def _takes_keywords(function: Any) -> bool:
    parameters = inspect.signature(function).parameters
    return "recompute_mapping" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _without_keywords(original: Any, self: Any, *_: Any, **__: Any) -> Any:
    return original(self)


def _nothing_for_lists(original: Any, self: Any, *args: Any, **keywords: Any) -> Any:
    """Transformers 5 is to pass over `_tied_weights_keys` in the form of a list, which it had in transformers 4."""
    return {} if isinstance(self._tied_weights_keys, _LISTS) else original(self, *args, **keywords)


def tie_what_lists_declare(model: nn.Module, stored: frozenset[str], *, root: bool) -> list[str]:
    """Let the parameters that a class lists as tied share the input embedding's values, if files hold one of the two.

    Args:
        model: as transformers loaded it.
        stored: names in the files.
        root: whether the checkpoint's configuration lets weights be tied; a part's own configuration may too.

    Returns:
        In words, which took its values from which.
    """
    tied = []
    for path, module in model.named_modules():
        keys = getattr(module, "_tied_weights_keys", None)
        embedding = _input_embedding(module)
        ties = root or getattr(getattr(module, "config", None), "tie_word_embeddings", False)
        if not isinstance(keys, _LISTS) or embedding is None or not ties:
            continue
        for key in keys:
            name = f"{path}.{key}" if path else key
            parameters = dict(model.named_parameters(remove_duplicate=False))
            other, table = parameters.get(name), embedding.weight
            if other is None or other is table or other.shape != table.shape:
                continue
            held = {id(parameter) for own, parameter in parameters.items() if own in stored}
            if id(table) in held and id(other) not in held:
                _replace(model, other, table)
                tied.append(f"{name} is not stored; its class lists it as tied, so it shares the input embedding")
            elif id(other) in held and id(table) not in held:
                _replace(model, table, other)
                tied.append(f"the input embedding is not stored; its class lists {name} as tied, so it shares that")
    return tied


def _replace(model: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[name] = new


def _input_embedding(module: Any) -> Any | None:
    try:
        embedding = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return embedding if isinstance(getattr(embedding, "weight", None), nn.Parameter) else None
