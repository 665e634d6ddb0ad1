"""The tensors in a checkpoint's safetensors files, seen without loading them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .buffers import alike

INDEX = "model.safetensors.index.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
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
        self._called: dict[str, str] = {}
        self._files = _files(folder)
        for file in self._files:
            self._read_header(file)
        self._check_index(folder)

    @property
    def main_dtype(self) -> torch.dtype:
        """The floating-point dtype that most bytes are stored in; float32 if none is."""
        size: Counter[torch.dtype] = Counter()
        for tensor in self.tensors.values():
            if tensor.dtype is not None:
                size[tensor.dtype] += math.prod(tensor.shape) * tensor.dtype.itemsize
        return size.most_common(1)[0][0] if size else torch.float32

    def dtype(self, name: str) -> torch.dtype | None:
        """Of one tensor; None if it is not stored or not floating point."""
        return self.tensors[name].dtype if name in self.tensors else None

    def call(self, names: Mapping[str, str]) -> None:
        """From here on, call the tensors that the files name by the keys by the values."""
        for stored, name in names.items():
            self.tensors[name] = replace(self.tensors.pop(stored), name=name)
            self._called[stored] = name

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, backed by its file."""
        entry = self.tensors[name]
        stored = next((old for old, new in self._called.items() if new == name), name)
        with safe_open(entry.file, framework="pt", device="cpu") as opened:
            value: torch.Tensor = opened.get_tensor(stored)
        return value

    def read(self) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
        """Every tensor on the CPU, one at a time, file by file; backed by the file until it is written to."""
        for file in self._files:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    yield self.tensors[self._called.get(name, name)], opened.get_tensor(name)

    def check_digests(self) -> int:
        """Compare the files that the hub's cache names by their SHA-256 with that name.

        Returns:
            How many were compared; files in other folders carry no digest.

        Raises:
            CheckpointError: a file is not what the hub holds.
        """
        promised = {file: file.resolve() for file in self._files}
        promised = {f: blob for f, blob in promised.items() if _SHA256.fullmatch(blob.name)}
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
            for (file, blob), digest in zip(promised.items(), threads.map(_sha256, promised.values()), strict=True):
                if digest != blob.name:
                    raise CheckpointError(
                        f"{file}: its bytes are not those that the hub holds (their SHA-256 is {digest}): delete "
                        f"{blob} and fetch it again"
                    )
        return len(promised)

    def _read_header(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    view = opened.get_slice(name)
                    dtype = _DTYPES.get(view.get_dtype())
                    if name in self.tensors and not alike(self.tensor(name), opened.get_tensor(name)):
                        raise CheckpointError(
                            f"{file}: it holds {name} with other values than {self.tensors[name].file} does, and "
                            "nobody can know which are meant: fetch both again"
                        )
                    self.tensors[name] = StoredTensor(name, file, tuple(view.get_shape()), dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: cannot be read as safetensors ({error}); it is cut off or damaged, fetch it again"
            ) from error

    def _check_index(self, folder: Path) -> None:
        index = folder / INDEX
        if self._files == [folder / "model.safetensors"]:
            return
        absent = sorted(set(_weight_map(index)) - set(self.tensors))
        if absent:
            raise CheckpointError(
                f"{index} names {absent[0]} (and {len(absent) - 1} more) that the shard "
                f"{_weight_map(index)[absent[0]]} does not hold: fetch the shard again"
            )


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    files = [folder / "model.safetensors"]  # comes before an index, as in transformers
    if not files[0].is_file() and index.is_file():
        files = sorted({folder / name for name in _weight_map(index).values()})
    for file in files:
        if not file.is_file():
            raise CheckpointError(_missing(file, indexed=index.is_file()))
    return files


def _missing(file: Path, *, indexed: bool) -> str:
    if file.is_symlink():
        return f"{file} is a link to {file.readlink()}, which is not there: fetch the checkpoint again"
    if indexed:
        return f"{file}, which {INDEX} names, is missing: fetch it again"
    if shards := sorted(p.name for p in file.parent.glob("model-*-of-*.safetensors")):
        return f"{file.parent / INDEX} is missing, which says what is in {shards[0]} and the other shards: fetch it"
    others = sorted(p.name for suffix in ("bin", "pt", "pth", "ckpt") for p in file.parent.glob(f"*.{suffix}"))
    pickles = f"; {others[0]} is a pickle, which runs code when it is read: convert it" if others else ": fetch it"
    return f"{file} is missing, and weights are read from safetensors only{pickles}"


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index}: cannot be read as an index of shards ({error}); fetch it again") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{index}: its weight_map does not name a file for each tensor; fetch it again")
    return weight_map


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
