"""The tensors in a checkpoint's safetensors files, seen without loading them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        name: as the file calls it.
        file: where it is.
        shape: its sizes.
        dtype: as torch calls it; None if it is not floating point.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None


class StoredWeights:
    """A folder's weights.

    Args:
        folder: holds `model.safetensors`, or `model.safetensors.index.json` and the shards that it names.

    Raises:
        CheckpointError: no safetensors file, a missing or cut-off file, or an index that names what is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        for file in _files(folder):
            self._read_header(file)
        self._check_index(folder)

    @property
    def widest_dtype(self) -> torch.dtype:
        """The floating-point dtype that holds all stored values exactly."""
        dtypes = {tensor.dtype for tensor in self.tensors.values() if tensor.dtype is not None}
        if len(dtypes) == 1:
            return dtypes.pop()
        return torch.float64 if torch.float64 in dtypes else torch.float32

    def read(self) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
        """Every tensor on the CPU, one at a time, file by file; backed by the file until it is written to."""
        for file in sorted({tensor.file for tensor in self.tensors.values()}):
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    yield self.tensors[name], opened.get_tensor(name)

    def _read_header(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    view = opened.get_slice(name)
                    dtype = _DTYPES.get(view.get_dtype())
                    self.tensors[name] = StoredTensor(name, file, tuple(view.get_shape()), dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: cannot be read as safetensors ({error}); it is cut off or damaged, fetch it again"
            ) from error

    def _check_index(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if not index.is_file():
            return
        absent = sorted(set(_weight_map(index)) - set(self.tensors))
        if absent:
            raise CheckpointError(
                f"{index} names {absent[0]} (and {len(absent) - 1} more) that the shard "
                f"{_weight_map(index)[absent[0]]} does not hold: fetch the shard again"
            )


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / name for name in _weight_map(index).values()})
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            others = sorted(p.name for suffix in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{suffix}"))
            pickles = f"; {others[0]} is a pickle, which runs code when it is read: convert it" if others else ""
            raise CheckpointError(f"{file} is missing: weights are read from safetensors only{pickles}")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: cannot be read as an index of shards ({error!r})") from error
    return weight_map
