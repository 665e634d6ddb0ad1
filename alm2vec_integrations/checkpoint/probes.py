"""A few calls to a model that was just loaded: does it answer as its card says, and does it hear?"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ..audio.decoding import SAMPLING_RATE, write_wav
from ..audio.workspace import workspace
from ..errors import ALM2VecError, CheckpointError, ModelContractError
from ..instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION
from .output import as_rows

ALIKE = 0.99999
"""Cosine above which two different sounds count as the same vector."""

_QUESTION = "Describe the background noise of this audio?"
_TEXTS = ("a dog barks", "a man speaks slowly while rain falls on a tin roof and, far away, a train passes")
_SILENCE = "silence"


@dataclass(frozen=True)
class Answers:
    """What the first calls returned.

    Attributes:
        texts: float32 [1, dim] for each, by the text.
        sounds: float32 [1, dim] for each, by what it is.
        unanswered: what is let pass without an answer, and what happened.
    """

    texts: dict[str, npt.NDArray[np.float32]]
    sounds: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """The width of a vector."""
        return int(self.texts[_TEXTS[0]].shape[1])

    @property
    def checks(self) -> list[str]:
        """What has been seen, in words."""
        heard = " and ".join(", ".join(self.sounds).rsplit(", ", 1))
        sounds = [f"{heard} with a question encode to finite rows"] if self.sounds else []
        return ["a text encodes to one finite row", *sounds]

    @property
    def warnings(self) -> list[str]:
        """What is odd about them, in words."""
        unanswered = [
            f"it gives no vector for digital {what} ({why}): leave such clips out, or use encode_partial, which does"
            for what, why in self.unanswered.items()
        ]
        return unanswered + _deafness(self.sounds)


def probe(model: Any, name: str, device: str, *, sounds: bool) -> Answers:
    """Make the first calls: a text as a document, and, if asked to, more of that and sounds with a question.

    Silence may go without an answer, as where a model divides by a clip's loudness: recordings are not silent.

    Raises:
        CheckpointError: a call fails.
        ModelContractError: what it returns is not one finite row.
    """
    texts = {
        text: _call(model, name, text=[text], task="document", instruction=DOC_INSTRUCTION, device=device)
        for text in (_TEXTS if sounds else _TEXTS[:1])
    }
    answers = Answers(texts)
    if not sounds:
        return answers
    with workspace.batch_folder() as folder:
        for sound, samples in _sounds().items():
            path = str(folder / f"{sound.split()[-1]}.wav")
            write_wav(path, samples)
            question: dict[str, Any] = {"text": [_QUESTION], "audio": [path], "task": "query"}
            try:
                row = _call(model, name, **question, instruction=QUERY_INSTRUCTION, device=device)
            except ALM2VecError as error:
                if sound != _SILENCE:
                    raise
                answers.unanswered[sound] = str(error).removeprefix(f"{name}: ")
            else:
                answers.sounds[sound] = row
    return answers


def _deafness(sounds: dict[str, npt.NDArray[np.float32]]) -> list[str]:
    """A warning if any two of the sounds came out alike."""
    unit = {sound: row[0] / np.linalg.norm(row) for sound, row in sounds.items()}
    alike = [(one, other) for one, other in combinations(unit, 2) if unit[one] @ unit[other] > ALIKE]
    if not alike:
        return []
    pairs = ", ".join(f"{one} and {other}" for one, other in alike)
    return [f"different sounds have the same vector ({pairs}): the model may not hear; run alm2vec doctor"]


def drift(reference: Answers, other: Answers) -> float:
    """1 - the smallest cosine between corresponding rows.

    Raises:
        ModelContractError: the other has no answer where the reference has one.
    """
    for sound in set(reference.sounds) - set(other.sounds):
        raise ModelContractError(f"for {sound} it has no vector, unlike in float32: {other.unanswered[sound]}")
    rows = reference.texts | reference.sounds
    others = other.texts | other.sounds
    return max(_apart(row, others[what]) for what, row in rows.items())


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one[0].astype(np.float64), other[0].astype(np.float64)
    return float(1.0 - (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


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
    sounds = {"noise": 0.1 * noise, "a tone": 0.5 * np.sin(2 * np.pi * 440 * time), _SILENCE: 0 * time}
    return {name: np.rint(32767 * np.clip(samples, -1, 1)).astype(np.int16) for name, samples in sounds.items()}
