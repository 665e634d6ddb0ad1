"""Load a checkpoint, measure it and judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import tiny
from ..audio.recordings import AUDIO_SUFFIXES
from ..audio.segmenting import audio_files
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..errors import ALM2VecError, AudioError, InputError
from ..inputs import AudioText
from ..instructions import QUESTIONS
from .diagnosis import Diagnosis
from .measures import (
    ALONE,
    EQUAL_LENGTHS,
    LONG,
    SHOWN_IN_THE_CARD,
    TEXT_QUERY,
    attempt,
    each_of,
    measure,
    measure_speed,
)
from .published import compare, read_matrices

COUPLED = {"float32": 1e-6, "lower": 2e-3}
"""1 - cosine between an item alone and beside others, above which the others have a say: rounding in float32 stays
under 1e-8, in bfloat16 under 1e-3."""

DEAF = 1e-5
"""1 - cosine between different sounds, below which they count as the same."""

RANDOM = 1e-3
"""Largest difference between two encodings of one item, above which something in the model is random."""

REPRODUCED = 0.02
"""Mean absolute difference from published cosines, which have four digits and were made in an unknown precision."""

FALLEN_BACK = "float32 is used"
"""In the load report's warnings where a lower precision was tried and did not do."""

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
        InputError: an argument is wrong, or `clips` or `published` cannot be read as such. A checkpoint's own faults
            are not raised: they are what is reported.
    """
    folder = clips or (published.parent if published else Path())
    matrices = read_matrices(published, folder) if published else []
    files = _find_clips(clips)
    found = Diagnosis(model)
    with ALM2VecEncoder(model, **encoder_arguments) as encoder:
        try:
            found.load = encoder.load_report.as_dict()
        except ALM2VecError as error:
            return _unusable(found, str(error))
        measure(encoder, found)
        if shown := [what for what in SHOWN_IN_THE_CARD if what in found.failed]:
            return _unusable(found, f"{shown[0]}, as its card shows, fails: {found.failed[shown[0]]}")
        _judge(found)
        # From here on as it should be used: equal configurations share the model that is loaded.
        with ALM2VecEncoder(model, **encoder_arguments | _batching(found)) as settled:
            measure_speed(settled, found)
            _judge_long(found)
            _run_example(settled, files, found)
            if matrices:
                found.published, failed = compare(settled, matrices)
                found.failed |= {f"published cosines, {form}": reason for form, reason in failed.items()}
                _judge_published(found)
    _measure_drift(model, encoder_arguments, found)
    _conclude(found)
    return found


def _unusable(found: Diagnosis, why: str) -> Diagnosis:
    found.status = "unusable"
    found.verdict.append(f"Do not use it: {why}")
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
            found.verdict.append(f"The card's example was run on {_SHOWN_CLIPS} clips; {len(files) - number} were not.")
            return
        try:
            male, female = answers @ encoder.encode_query(AudioText(QUESTIONS["gender"], AudioClip(file)))
        except AudioError as error:
            found.verdict.append(f"{file.name} was left out: {error.reason}.")
        except Exception as error:  # the model's own code may raise anything
            found.failed[f"the card's example on {file.name}"] = f"{type(error).__name__}: {error}"
        else:
            found.example[file.name] = {"male": float(male), "female": float(female)}
    if not found.example:
        found.verdict.append("None of the clips could be embedded, so the card's example shows nothing.")


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
    if fell_back and not _is_random(found):  # which would move probes in any precision
        _keep_to_float32(found)


def _judge(found: Diagnosis) -> None:
    assert found.load is not None  # noqa: S101 - it loaded
    say: Callable[[str], None] = found.verdict.append
    if found.hearing is None or found.hearing < DEAF:
        found.status = "doubtful"
        say("It may not hear: different sounds come out alike. Do not index audio with it before this is explained.")
    elif found.hearing_alone is not None and found.hearing_alone < DEAF:
        found.status = "doubtful"
        say("It does not hear a clip without a question: pair every clip with one (AudioText, document_question).")
    if _is_random(found):
        found.status = "doubtful"
        say("The same item gives different vectors from call to call: something in it is random.")
    else:
        # What is random in it would be taken for its neighbours' doing.
        _judge_coupling(found)
    for what in (TEXT_QUERY, ALONE):
        if what in found.failed:
            say(f"It does not take {what}: {found.failed[what]}")
    if any(FALLEN_BACK in warning for warning in found.load["warnings"]):
        _keep_to_float32(found)


def _is_random(found: Diagnosis) -> bool:
    return found.determinism is None or found.determinism > RANDOM


def _keep_to_float32(found: Diagnosis) -> None:
    found.settings["dtype"] = "float32"
    found.verdict.append('Lower precision does not do for it: pass dtype="float32", which saves trying.')


def _judge_coupling(found: Diagnosis) -> None:
    assert found.load is not None  # noqa: S101 - it loaded
    limit = COUPLED["float32" if found.load["dtype"] == "float32" else "lower"]
    coupled = {name for name, worst in found.coupling.items() if worst > limit}
    refused = {name for name in found.failed if name.startswith(("clips of", "texts of", "questions of"))}
    alone = {name for name in refused if each_of(name) in found.failed}
    if alone:
        found.status = "doubtful"
        found.verdict.append(f"It fails on some items, even by themselves: {found.failed[each_of(min(alone))]}")
    coupled |= refused - alone
    if coupled & set(EQUAL_LENGTHS):
        found.settings["batching"] = "single"
        found.verdict.append('Its vectors depend on what else is in the batch: pass batching="single".')
    elif coupled:
        found.settings["batching"] = "equal"
        found.verdict.append('Its vectors depend on longer items in the batch: pass batching="equal".')


def _judge_long(found: Diagnosis) -> None:
    if LONG in found.failed:
        found.status = "doubtful"
        found.verdict.append(f"It fails on {LONG}: {found.failed[LONG]}")


def _judge_published(found: Diagnosis) -> None:
    if not found.published:
        found.status = "doubtful"
        found.verdict.append("The published cosines could not be compared: no form of the call works for them.")
        return
    best = found.published[0]
    if best["difference"] <= REPRODUCED:
        found.verdict.append(f"It reproduces the published cosines with ({best['query']}) and ({best['document']}).")
    else:
        found.status = "doubtful"
        found.verdict.append(
            f"It does not reproduce the published cosines: off by {best['difference']:.2f} at best. These are not "
            "the published weights, or they were not loaded as they were meant to be."
        )


def _conclude(found: Diagnosis) -> None:
    if found.model == tiny.NAME:
        found.verdict.append("It is the bundled demonstration model, not ALM2Vec: do not index with it.")
    if found.status == "doubtful":
        return
    found.status = "good with settings" if found.settings else "good"
    how = ", ".join(f'{name}="{value}"' for name, value in found.settings.items())
    found.verdict.append(f"Use it with {how}." if how else "Use it as it is.")


def _find_clips(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise InputError("is not a folder", source=str(folder))
    files = list(audio_files(folder))
    if not files:
        raise InputError(f"holds no recordings ({', '.join(sorted(AUDIO_SUFFIXES))})", source=str(folder))
    return files
