"""A few calls to a model that was just loaded: does it answer as its card says, and does it hear?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ..audio.decoding import SAMPLING_RATE, write_wav
from ..audio.workspace import workspace
from ..errors import CheckpointError, ModelContractError
from ..instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION
from .output import as_rows

ALIKE = 0.99999
"""Cosine above which two different sounds count as the same vector."""

_QUESTION = "Describe the background noise of this audio?"


def probe_text(model: Any, name: str, device: str) -> npt.NDArray[np.float32]:
    """The vector of a text as a document: float32 [1, dim].

    Raises:
        CheckpointError: the call fails.
        ModelContractError: what it returns is not one finite row.
    """
    return _call(model, name, text=["a dog barks"], task="document", instruction=DOC_INSTRUCTION, device=device)


def probe_audio(model: Any, name: str, device: str) -> npt.NDArray[np.float32]:
    """The vectors of noise, a tone and silence, in the card's form of a clip with a question: float32 [3, dim].

    Raises:
        CheckpointError: a call fails.
        ModelContractError: what it returns is not one finite row for each.
    """
    with workspace.batch_folder() as folder:
        rows = []
        for sound, samples in _sounds().items():
            path = str(folder / f"{sound}.wav")
            write_wav(path, samples)
            rows.append(
                _call(
                    model,
                    name,
                    text=[_QUESTION],
                    audio=[path],
                    task="query",
                    instruction=QUERY_INSTRUCTION,
                    device=device,
                )
            )
    return np.concatenate(rows)


def deafness(audio: npt.NDArray[np.float32]) -> list[str]:
    """A warning if any two of the sounds came out alike."""
    unit = audio / np.linalg.norm(audio, axis=1, keepdims=True)
    names = list(_sounds())
    alike = [(names[i], names[j]) for i, j in combinations(range(len(names)), 2) if unit[i] @ unit[j] > ALIKE]
    if not alike:
        return []
    pairs = ", ".join(f"{one} and {other}" for one, other in alike)
    return [f"different sounds have the same vector ({pairs}): the model may not hear; run alm2vec doctor"]


def drift(reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """1 - the smallest cosine between corresponding rows."""
    a, b = reference.astype(np.float64), other.astype(np.float64)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(1.0 - cosines.min())


def _call(model: Any, name: str, **keywords: Any) -> npt.NDArray[np.float32]:
    import torch

    try:
        with torch.no_grad():
            output = model.encode(**keywords, normalize=True)
    except Exception as error:
        kind = " and ".join(key for key in ("text", "audio") if key in keywords)
        raise CheckpointError(
            f"{name}: the first call of encode with {kind} failed: {type(error).__name__}: {error}"
        ) from error
    try:
        return as_rows(output, rows=1, dim=None, model=name)
    except ModelContractError as error:
        error.add_note("in the first call after loading")
        raise


def _sounds() -> dict[str, npt.NDArray[np.int16]]:
    seconds = 2
    time = np.arange(seconds * SAMPLING_RATE) / SAMPLING_RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    sounds = {"noise": 0.1 * noise, "tone": 0.5 * np.sin(2 * np.pi * 440 * time), "silence": 0 * time}
    return {name: np.rint(32767 * np.clip(samples, -1, 1)).astype(np.int16) for name, samples in sounds.items()}
