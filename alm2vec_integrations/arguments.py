"""Look at what callers pass, before anything is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from . import inputs, tiny
from .checkpoint.configuration import OTHER_FILES, RESERVED_KWARGS, Verify
from .checkpoint.resolving import is_folder, is_known
from .errors import InputError
from .instructions import Task
from .planning import Batching, Limits

_DTYPES = ("float32", "bfloat16", "float16", "auto")


def model_name(model: Any) -> str:
    """A hub id, or a folder's absolute path."""
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
        if not isinstance(model, str):
            raise InputError(f"model must be a path of characters, got {model!r}")
        return str(Path(model).expanduser().absolute())
    if not isinstance(model, str) or not model:
        raise InputError(f"model must be a hub id, 'alm2vec-tiny' or a folder, got {model!r}")
    return str(Path(model).expanduser().absolute()) if is_folder(model) else model


def limits(max_batch_items: Any, max_batch_seconds: Any, batching: Any) -> Limits:
    """What may go into one micro-batch."""
    if isinstance(max_batch_items, bool) or not isinstance(max_batch_items, int) or max_batch_items < 1:
        raise InputError(f"max_batch_items must be a whole number of 1 or more, got {max_batch_items!r}")
    is_number = isinstance(max_batch_seconds, (int, float)) and not isinstance(max_batch_seconds, bool)
    if not is_number or not max_batch_seconds > 0:
        raise InputError(f"max_batch_seconds must be more than 0, got {max_batch_seconds!r}")
    most = float(min(max_batch_seconds, sys.float_info.max))  # a whole number may be larger than that
    return Limits(max_batch_items, most, _one_of("batching", batching, get_args(Batching)))


def _one_of(name: str, value: Any, names: tuple[Any, ...]) -> Any:
    # Arrays, which compare item by item, come here too.
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{name} must be one of {names}, got {value!r}")
    return value


def what_to_load(
    model: str,
    *,
    revision: Any,
    token: Any,
    cache_dir: Any,
    local_files_only: Any,
    trust_remote_code: Any,
    device: Any,
    dtype: Any,
    model_kwargs: Any,
    verify: Any,
) -> dict[str, Any]:
    """Keyword arguments for `checkpoint.configuration.configure`, without the token.

    `configure` settles the device and so must wait until torch may be imported.
    """
    _one_of("verify", verify, get_args(Verify))
    dtype_name = None if dtype is None else str(dtype).removeprefix("torch.")
    if dtype_name is not None and dtype_name not in _DTYPES:
        raise InputError(f"dtype must be None or one of {_DTYPES}, got {dtype!r}")
    if trust_remote_code is not None and not isinstance(trust_remote_code, bool):
        raise InputError(f"trust_remote_code must be True, False or None, got {trust_remote_code!r}")
    if not isinstance(local_files_only, bool):
        raise InputError(f"local_files_only must be True or False, got {local_files_only!r}")
    if token is not None and not isinstance(token, (str, bool)):
        raise InputError(f"token must be a str, True, False or None, got {type(token).__name__}")
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise InputError(f"cache_dir must be a folder, got {cache_dir!r}")
    if revision is not None and (not isinstance(revision, str) or not revision):
        raise InputError(f"revision must be a branch, tag or commit, or None, got {revision!r}")
    return {
        "model": model,
        "revision": revision,
        "cache_dir": None if cache_dir is None else os.fspath(cache_dir),
        "local_files_only": local_files_only,
        "trusted": _is_trusted(model, revision, trust_remote_code),
        "device": None if device is None else str(device),
        "dtype": dtype_name,
        "model_kwargs": _model_kwargs(model_kwargs),
        "verify": verify,
    }


def task(value: Any) -> Task:
    """One of the model's two tasks."""
    chosen: Task = _one_of("task", value, get_args(Task))
    return chosen


def instruction(name: str, value: Any) -> str | None:
    """An instruction; None if there is none, which "" means too."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a str or None, got {value!r}")
    return inputs.plain_text(value) if value else None


def instructions(value: Any, default: str, count: int, *, single: bool) -> list[str]:
    """One resolved instruction for each item."""
    if value is None or isinstance(value, str):
        return [instruction("instruction", value) or default] * count
    if single or not isinstance(value, Sequence) or len(value) != count:
        raise InputError(
            "instruction must be a str, None, or a list with one for each item"
            + (f": {len(value)} were given for {count} items" if isinstance(value, Sequence) else "")
        )
    return [instruction(f"instruction[{i}]", one) or default for i, one in enumerate(value)]


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")
    return value


def _model_kwargs(value: Any) -> dict[str, Any]:
    named = value is None or (isinstance(value, Mapping) and all(type(key) is str for key in value))
    if not named:
        raise InputError(f"model_kwargs must be a dict of keyword arguments, got {value!r}")
    for name in value or {}:
        if name in RESERVED_KWARGS:
            own = RESERVED_KWARGS[name]
            instead = f"use the encoder's own argument {own}" if own else "it is set by the encoder"
            raise InputError(f"model_kwargs cannot hold {name!r}: {instead}")
        if name in OTHER_FILES and value[name]:
            raise InputError(
                f"model_kwargs cannot hold {name}={value[name]!r}: weights are read from model.safetensors, or from "
                "the shards that model.safetensors.index.json names; put them into a folder of their own, named so"
            )
    device_map = (value or {}).get("device_map")
    if "meta" in map(str, device_map.values() if isinstance(device_map, Mapping) else [device_map]):
        raise InputError(f"device_map={device_map!r}: tensors on the meta device have no values; name another device")
    return dict(value or {})


def _is_trusted(model: str, revision: str | None, trust_remote_code: bool | None) -> bool:
    if trust_remote_code is None:
        return is_known(model, revision)
    return trust_remote_code or model == tiny.NAME
