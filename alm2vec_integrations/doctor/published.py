"""Published cosines, and the forms of a call in which they may have been made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..errors import InputError
from ..instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION, Task

# Forms in which the published figures may have been made: the card does not say. (task, instruction) of a side.
FORMS: dict[str, tuple[Task, str]] = {
    "query, QUERY_INSTRUCTION": ("query", QUERY_INSTRUCTION),
    "query, DOC_INSTRUCTION": ("query", DOC_INSTRUCTION),
    "document, QUERY_INSTRUCTION": ("document", QUERY_INSTRUCTION),
    "document, DOC_INSTRUCTION": ("document", DOC_INSTRUCTION),
}


@dataclass(frozen=True)
class Matrix:
    """Cosines of queries and documents.

    Attributes:
        queries: texts, or files of recordings.
        documents: the other.
        cosine: float64 [queries, documents].
    """

    queries: list[str | Path]
    documents: list[str | Path]
    cosine: npt.NDArray[np.float64]


def read_matrices(file: Path, folder: Path) -> list[Matrix]:
    """Read a JSON file of published cosines.

    Args:
        file: lists `audio_to_text` and `text_to_audio` of {"audio": file names, "text": texts, "cosine": matrix with a
            row for each query}.
        folder: where the recordings are.

    Raises:
        InputError: not such a file, or a recording that is missing.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as published cosines ({error})", source=str(file)) from error
    matrices = []
    for name in ("audio_to_text", "text_to_audio"):
        entries = content.get(name, []) if isinstance(content, dict) else []
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            matrices.append(_matrix(entry, name, f"{file}: {name}[{number}]", folder))
    if not matrices:
        raise InputError("holds neither audio_to_text nor text_to_audio", source=str(file))
    return matrices


def _matrix(entry: Any, name: str, where: str, folder: Path) -> Matrix:
    names, text = (_texts(entry, key, where) for key in ("audio", "text"))
    audio = [folder / file for file in names]
    queries: list[Any] = audio if name == "audio_to_text" else text
    documents: list[Any] = text if name == "audio_to_text" else audio
    try:
        cosine = np.array(entry.get("cosine"), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"'cosine' must be a matrix of numbers ({error})", source=where) from error
    if cosine.shape != (len(queries), len(documents)) or not (np.abs(cosine) <= 1.0001).all():
        raise InputError(
            f"'cosine' must have a row of cosines for each query, shape {(len(queries), len(documents))}, got "
            f"{cosine.shape}",
            source=where,
        )
    for path in audio:
        if not path.is_file():
            raise InputError("is named in the published cosines and missing", source=str(path))
    return Matrix(queries, documents, cosine)


def _texts(entry: Any, key: str, where: str) -> list[str]:
    values = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) and value for value in values):
        raise InputError(f"{key!r} must be a list of str, and not empty", source=where)
    return values


def compare(encoder: ALM2VecEncoder, matrices: list[Matrix]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Every form of the queries with every form of the documents.

    Returns:
        For each pair of forms the mean absolute difference and the share of right first ranks, best first; and for
        each form that the model does not take, what it raised.
    """
    sides: dict[str, list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]] = {}
    failed = {}
    for form, (task, instruction) in FORMS.items():
        try:
            sides[form] = [
                (
                    encoder.encode(_items(matrix.queries), task=task, instruction=instruction),
                    encoder.encode(_items(matrix.documents), task=task, instruction=instruction),
                )
                for matrix in matrices
            ]
        except InputError:
            raise  # a recording is at fault
        except Exception as error:
            failed[form] = f"{type(error).__name__}: {error}"
    rows = []
    for query, document in product(sides, sides):
        differences, right = [], []
        for of_query, of_document, matrix in zip(sides[query], sides[document], matrices, strict=True):
            ours = of_query[0] @ of_document[1].T
            differences.append(np.abs(ours - matrix.cosine).ravel())
            right.append(ours.argmax(axis=1) == matrix.cosine.argmax(axis=1))
        rows.append(
            {
                "query": query,
                "document": document,
                "difference": float(np.concatenate(differences).mean()),
                "first_ranks": float(np.concatenate(right).mean()),
            }
        )
    return sorted(rows, key=lambda row: row["difference"]), failed


def _items(side: list[str | Path]) -> list[str | AudioClip]:
    return [AudioClip(entry) if isinstance(entry, Path) else entry for entry in side]
