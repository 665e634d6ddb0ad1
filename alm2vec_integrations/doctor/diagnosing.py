"""Load a checkpoint, have it measured and judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..audio.recordings import AUDIO_SUFFIXES
from ..audio.segmenting import audio_files
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..errors import ALM2VecError, AudioError, CheckpointUnavailableError, InputError
from ..inputs import AudioText
from ..instructions import QUESTIONS
from .diagnosis import Diagnosis
from .judging import (
    FALLEN_BACK,
    conclude,
    is_random,
    judge,
    judge_long,
    judge_published,
    keep_to_float32,
    unusable,
)
from .measures import SHOWN_IN_THE_CARD, attempt, measure, measure_speed
from .published import compare, read_matrices

_SHOWN_CLIPS = 8


def diagnose(
    model: str, *, clips: Path | None = None, published: Path | None = None, **encoder_arguments: Any
) -> Diagnosis:
    """Load a checkpoint, measure it and judge it.

    Args:
        model: as for `ALM2VecEncoder`.
        clips: a folder of recordings for the card's example; also where the published ones are looked for.
        published: a JSON file as `published.read_matrices` takes it.
        **encoder_arguments: for `ALM2VecEncoder`.

    Raises:
        InputError: an argument is wrong, or `clips` or `published` cannot be read as such.
        CheckpointUnavailableError: there is no checkpoint to examine. A checkpoint's own faults are not raised: they
            are what is reported.
    """
    folder = clips or (published.parent if published else Path())
    matrices = read_matrices(published, folder) if published else []
    files = _find_clips(clips)
    found = Diagnosis(model)
    with ALM2VecEncoder(model, **encoder_arguments) as encoder:
        try:
            found.load = encoder.load_report.as_dict()
        except (InputError, CheckpointUnavailableError):
            raise
        except ALM2VecError as error:
            return unusable(found, str(error))
        measure(encoder, found)
        if shown := [what for what in SHOWN_IN_THE_CARD if what in found.failed]:
            return unusable(found, f"{shown[0]}, as its card shows, fails: {found.failed[shown[0]]}")
        judge(found)
        # From here on as it should be used: equal configurations share the model that is loaded.
        with ALM2VecEncoder(model, **encoder_arguments | _batching(found)) as settled:
            measure_speed(settled, found)
            judge_long(found)
            _run_example(settled, files, found)
            if matrices:
                found.published, failed = compare(settled, matrices)
                found.failed |= {f"published cosines, {form}": reason for form, reason in failed.items()}
                judge_published(found)
    _measure_drift(model, encoder_arguments, found)
    conclude(found)
    return found


def _batching(found: Diagnosis) -> dict[str, Any]:
    return {name: value for name, value in found.settings.items() if name == "batching"}


def _run_example(encoder: ALM2VecEncoder, files: Sequence[Path], found: Diagnosis) -> None:
    """The card's question and answers, on the user's recordings."""
    answers = attempt(found, "the answers male and female", lambda: encoder.encode_document(["male", "female"]))
    if not files or answers is None:
        return
    for number, file in enumerate(files):
        if len(found.example) == _SHOWN_CLIPS:
            found.say(f"The card's example was run on {_SHOWN_CLIPS} clips; {len(files) - number} were not.")
            return
        try:
            male, female = answers @ encoder.encode_query(AudioText(QUESTIONS["gender"], AudioClip(file)))
        except AudioError as error:
            found.say(f"{file.name} was left out: {error.reason}.")
        except Exception as error:  # the model's own code may raise anything
            found.failed[f"the card's example on {file.name}"] = f"{type(error).__name__}: {error}"
        else:
            found.example[file.name] = {"male": float(male), "female": float(female)}
    if not found.example:
        found.say("None of the clips could be embedded, so the card's example shows nothing.")


def _measure_drift(model: str, encoder_arguments: dict[str, Any], found: Diagnosis) -> None:
    """bfloat16 against float32: measured by loading, or by loading once more if float32 was loaded."""
    assert found.load is not None  # noqa: S101 - it loaded
    if found.load["drift"] is not None and encoder_arguments.get("dtype") in (None, "bfloat16"):
        found.drift = found.load["drift"]
        return
    arguments = encoder_arguments | {"dtype": "bfloat16", "verify": "fast"}

    warned: list[str] = []

    def drift() -> float | None:
        with ALM2VecEncoder(model, **arguments) as encoder:
            warned.extend(encoder.load_report.warnings)
            return encoder.load_report.drift

    found.drift = attempt(found, "bfloat16", drift)
    fell_back = "bfloat16" in found.failed or any(FALLEN_BACK in warning for warning in warned)
    if fell_back and not is_random(found):  # which would move probes in any precision
        keep_to_float32(found)


def _find_clips(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise InputError("is not a folder", source=str(folder))
    files = list(audio_files(folder))
    if not files:
        raise InputError(f"holds no recordings ({', '.join(sorted(AUDIO_SUFFIXES))})", source=str(folder))
    return files
