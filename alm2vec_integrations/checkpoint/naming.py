"""Find the stored tensors behind parameters that the files call something else, by their values.

transformers translates names while it loads (prefixes of a base model, old names of norms, the two halves of a weight
norm) and does not say which became which. A tensor of the same shape and values is the one.
"""

from __future__ import annotations

import itertools
import re

import torch
from torch import nn

from .precision import is_plain
from .weights import StoredWeights

SAMPLE = 4096
"""Values of each tensor that are looked at where not all are: 16 KiB in float32."""


def hushed(model: nn.Module) -> list[re.Pattern[str]]:
    """The names of what classes tell transformers to be silent about when it is missing."""
    said = {p for m in model.modules() for p in getattr(m, "_keys_to_ignore_on_load_missing", None) or ()}
    return [re.compile(pattern) for pattern in said]


def called_otherwise(model: nn.Module, stored: StoredWeights, missing: frozenset[str], *, full: bool) -> dict[str, str]:
    """The model's names of tensors that the files hold under other names.

    Args:
        model: as transformers loaded it, in the dtypes that it is stored in.
        stored: the files.
        missing: names that transformers found in no file, under any name that it knows for them. Their memory is
            uninitialised, and may by chance look like an unused tensor.
        full: compare every value; else a sample of each tensor.

    Returns:
        By the files' names.
    """
    tensors = {path: tensor for path, tensor in model.state_dict(keep_vars=True).items() if is_plain(tensor)}
    held = {id(tensor) for path, tensor in tensors.items() if path in stored.tensors}
    silent = hushed(model)
    nameless = {
        path: tensor
        for path, tensor in tensors.items()
        if id(tensor) not in held and not tensor.is_meta and path not in missing
        if not any(pattern.search(path) for pattern in silent)
    }
    unused = set(stored.tensors) - set(tensors)
    found: dict[str, str] = {}
    for path, tensor in nameless.items():
        alike = [name for name in unused if stored.tensors[name].shape == tuple(tensor.shape)]
        for name in sorted(alike, key=lambda name: -_common_end(name, path)):
            if _same(tensor, stored.tensor(name), full=full):
                found[name] = path
                unused.remove(name)
                break
    return found


def values(tensor: torch.Tensor, *, full: bool) -> torch.Tensor:
    """What is looked at of a tensor: all of it, or values at equal distances."""
    flat = tensor.detach().reshape(-1)
    return flat if full else flat[:: max(1, flat.numel() // SAMPLE)]


def _same(mine: torch.Tensor, theirs: torch.Tensor, *, full: bool) -> bool:
    one = values(mine, full=full)
    other = values(theirs, full=full).to(one.device, one.dtype)
    # Damaged values are to be found at their place, not to hide it.
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def _common_end(one: str, other: str) -> int:
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False))
    return sum(1 for _ in alike)
