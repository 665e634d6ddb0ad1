"""Examine a checkpoint on the machine where it will work, and say how to use it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import tiny
from .audio.decoding import SAMPLING_RATE
from .encoder import ALM2VecEncoder
from .errors import ALM2VecError, AudioError, InputError
from .inputs import AudioClip, AudioText, Item
from .instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION, QUESTIONS, Task

Status = Literal["good", "good with settings", "doubtful", "unusable"]

COUPLED = {"float32": 1e-6, "lower": 2e-3}
"""1 - cosine between an item alone and beside others, above which the others have a say: rounding in float32 stays
under 1e-8, in bfloat16 under 1e-3."""

REPRODUCED = 0.02
"""Mean absolute difference from published cosines, which have four digits and were made in an unknown precision."""

# Forms in which the published figures may have been made: the card does not say. (task, instruction) of a side.
FORMS: dict[str, tuple[Task, str]] = {
    "query, QUERY_INSTRUCTION": ("query", QUERY_INSTRUCTION),
    "query, DOC_INSTRUCTION": ("query", DOC_INSTRUCTION),
    "document, QUERY_INSTRUCTION": ("document", QUERY_INSTRUCTION),
    "document, DOC_INSTRUCTION": ("document", DOC_INSTRUCTION),
}

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_SHOWN_CLIPS = 8


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        model: the checkpoint's name.
        status: in a word.
        verdict: sentences that a person can act on.
        settings: keyword arguments for `ALM2VecEncoder` that follow from it.
        load: the load report, or None if it does not load.
        determinism: largest difference between two encodings of one item.
        coupling: 1 - cosine between an item alone and the same beside others, by what was beside it.
        hearing: 1 - cosine between the vectors of two different sounds, the smallest of several.
        example: the card's example on the supplied clips: cosines with "male" and "female", by file.
        audio_seconds_per_second: of clips of 10 s, decoding included.
        published: mean absolute difference from the published cosines and share of right first ranks, by form, best
            first.
    """

    model: str
    status: Status = "good"
    verdict: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] | None = None
    determinism: float | None = None
    coupling: dict[str, float] = field(default_factory=dict)
    hearing: float | None = None
    example: dict[str, dict[str, float]] = field(default_factory=dict)
    audio_seconds_per_second: float | None = None
    published: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.status}", ""]
        if self.load is not None:
            lines += [f"loaded on {self.load['device']} in {self.load['dtype']}, {self.load['seconds']:.1f} s"]
            lines += [f"  checked: {check}" for check in self.load["checks"]]
            lines += [f"  warning: {warning}" for warning in self.load["warnings"]]
            if self.load["drift"] is not None:
                lines.append(f"  differs from float32 by {self.load['drift']:.1e} (1 - cosine)")
        if self.determinism is not None:
            lines.append(f"the same item twice differs by {self.determinism:.1e}")
        lines += [f"an item {beside} differs from itself alone by {x:.1e}" for beside, x in self.coupling.items()]
        if self.hearing is not None:
            lines.append(f"different sounds differ by at least {self.hearing:.1e}")
        if self.audio_seconds_per_second is not None:
            lines.append(f"{self.audio_seconds_per_second:.0f} seconds of audio per second")
        if self.example:
            lines.append(f'"{QUESTIONS["gender"]}"')
            lines += [f"  male {x['male']:7.4f}  female {x['female']:7.4f}  {name}" for name, x in self.example.items()]
        if self.published:
            lines.append("published cosines, by form of the query and of the document:")
            lines += [
                f"  off by {row['difference']:.4f}, first ranks right {row['first_ranks']:.0%}: "
                f"({row['query']}) and ({row['document']})"
                for row in self.published
            ]
        return "\n".join([*lines, "", *self.verdict])


def diagnose(
    model: str, *, clips: Path | None = None, published: Path | None = None, **encoder_arguments: Any
) -> Diagnosis:
    """Load a checkpoint, measure it and judge it.

    Args:
        model: as for `ALM2VecEncoder`.
        clips: a folder of recordings for the card's example; also where the published ones are looked for.
        published: a JSON file with lists `audio_to_text` and `text_to_audio` of {"audio": file names, "text": texts,
            "cosine": matrix with a row for each query}.
        **encoder_arguments: for `ALM2VecEncoder`.

    Raises:
        InputError: `clips` or `published` cannot be read as such. A checkpoint's own faults are not raised: they are
            what is reported.
    """
    matrices = _read_published(published)
    folder = clips or (published.parent if published else Path())
    for entry in (entry for queries, documents, _ in matrices for entry in (*queries, *documents)):
        if isinstance(entry, dict) and not (folder / entry["audio"]).is_file():
            raise InputError("is named in the published cosines and missing", source=str(folder / entry["audio"]))
    files = _find_clips(clips)
    diagnosis = Diagnosis(model)
    with ALM2VecEncoder(model, **encoder_arguments) as encoder:
        try:
            diagnosis.load = encoder.load_report.as_dict()
            _measure(encoder, diagnosis)
            _run_example(encoder, files, diagnosis)
            if matrices:
                _compare(encoder, matrices, folder, diagnosis)
        except InputError:
            raise
        except ALM2VecError as error:
            diagnosis.status = "unusable"
            diagnosis.verdict.append(f"Do not use it: {error}")
            return diagnosis
    _judge(diagnosis)
    return diagnosis


def _measure(encoder: ALM2VecEncoder, diagnosis: Diagnosis) -> None:
    question = QUESTIONS["background"]
    quiet, other, loud = (_noise(2.0, seed, level) for seed, level in ((0, 0.02), (1, 0.02), (2, 0.9)))
    tone = _clip(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLING_RATE) / SAMPLING_RATE))
    item = AudioText(question, quiet)
    alone = encoder.encode_query(item)
    diagnosis.determinism = float(np.abs(encoder.encode_query(item) - alone).max())

    def beside(*others: Item) -> float:
        return _apart(encoder.encode_query([item, *others])[0], alone)

    text = "a dog barks"
    long_text = "a dog barks while " + "a car passes and " * 20 + "rain falls"
    diagnosis.coupling = {
        "beside one of its length": beside(AudioText(question, other)),
        "beside a louder one": beside(AudioText(question, loud)),
        "beside a longer one": beside(AudioText(question, _noise(9.0, 3, 0.02))),
        "(a text) beside a longer one": _apart(
            encoder.encode_document([text, long_text])[0], encoder.encode_document(text)
        ),
    }
    sounds = encoder.encode_query([AudioText(question, clip) for clip in (quiet, tone, loud)])
    diagnosis.hearing = min(_apart(sounds[i], sounds[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    many = [_noise(10.0, seed, 0.1) for seed in range(8)]
    encoder.encode_document(many[:1])
    began = time.perf_counter()
    encoder.encode_document(many)
    diagnosis.audio_seconds_per_second = 10.0 * len(many) / (time.perf_counter() - began)


def _run_example(encoder: ALM2VecEncoder, files: Sequence[Path], diagnosis: Diagnosis) -> None:
    if not files:
        return
    answers = encoder.encode_document(["male", "female"])
    for file in files[:_SHOWN_CLIPS]:
        try:
            male, female = answers @ encoder.encode_query(AudioText(QUESTIONS["gender"], AudioClip(file)))
        except AudioError as error:
            diagnosis.verdict.append(f"{file.name} was left out: {error.reason}.")
            continue
        diagnosis.example[file.name] = {"male": float(male), "female": float(female)}


def _compare(
    encoder: ALM2VecEncoder,
    matrices: list[tuple[list[Any], list[Any], npt.NDArray[Any]]],
    folder: Path,
    found: Diagnosis,
) -> None:
    """Every form of the query with every form of the document."""

    def embed(side: list[Any], form: str) -> npt.NDArray[np.float32]:
        task, instruction = FORMS[form]
        items = [AudioClip(folder / entry["audio"]) if isinstance(entry, dict) else entry for entry in side]
        return encoder.encode(items, task=task, instruction=instruction)

    sides = [{form: (embed(q, form), embed(d, form)) for form in FORMS} for q, d, _ in matrices]
    for query, document in product(FORMS, FORMS):
        differences, right = [], []
        for vectors, (_, _, cosine) in zip(sides, matrices, strict=True):
            ours = vectors[query][0] @ vectors[document][1].T
            differences.append(np.abs(ours - cosine).ravel())
            right.append(ours.argmax(axis=1) == cosine.argmax(axis=1))
        found.published.append(
            {
                "query": query,
                "document": document,
                "difference": float(np.concatenate(differences).mean()),
                "first_ranks": float(np.concatenate(right).mean()),
            }
        )
    found.published.sort(key=lambda row: row["difference"])


def _judge(found: Diagnosis) -> None:
    assert found.load is not None  # noqa: S101 - it loaded
    assert found.hearing is not None  # noqa: S101
    assert found.determinism is not None  # noqa: S101
    limit = COUPLED["float32" if found.load["dtype"] == "float32" else "lower"]
    say: Callable[[str], None] = found.verdict.append
    doubts = 0
    if found.hearing < 1e-5:
        doubts += 1
        say("It may not hear: different sounds come out alike. Do not index audio with it before this is explained.")
    if found.determinism > 1e-3:
        doubts += 1
        say("The same item gives different vectors from call to call: something in it is random.")
    # What is random in it would be taken for its neighbours' doing.
    coupling = found.coupling if found.determinism <= 1e-3 else dict.fromkeys(found.coupling, 0.0)
    audio = {name: value for name, value in coupling.items() if "text" not in name}
    if audio["beside one of its length"] > limit or audio["beside a louder one"] > limit:
        found.settings["batching"] = "single"
        say('Its vectors depend on what else is in the batch: pass batching="single".')
    elif max(coupling.values()) > limit:
        found.settings["batching"] = "equal"
        say('Its vectors depend on longer items in the batch: pass batching="equal".')
    if any("float32 is used" in warning for warning in found.load["warnings"]):
        found.settings["dtype"] = "float32"
        say('Lower precision does not do for it: pass dtype="float32", which saves trying.')
    if found.published:
        best = found.published[0]
        if best["difference"] <= REPRODUCED:
            say(f"It reproduces the published cosines with ({best['query']}) and ({best['document']}).")
        else:
            doubts += 1
            say(
                f"It does not reproduce the published cosines: off by {best['difference']:.2f} at best. These are not "
                "the published weights, or they were not loaded as they were meant to be."
            )
    if found.model == tiny.NAME:
        say("It is the bundled demonstration model, not ALM2Vec: its vectors mean nothing.")
    found.status = "doubtful" if doubts else "good with settings" if found.settings else "good"
    if not doubts:
        how = ", ".join(f'{name}="{value}"' for name, value in found.settings.items())
        say(f"Use it with {how}." if how else "Use it as it is.")


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return max(0.0, float(1.0 - (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))))


def _noise(seconds: float, seed: int, level: float) -> AudioClip:
    rng = np.random.default_rng(seed)
    return _clip(level * rng.uniform(-1.0, 1.0, round(seconds * SAMPLING_RATE)))


def _clip(samples: npt.NDArray[np.float64]) -> AudioClip:
    return AudioClip(samples.astype(np.float32), sampling_rate=SAMPLING_RATE)


def _find_clips(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise InputError("is not a folder", source=str(folder))
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise InputError(f"holds no recordings ({', '.join(_SUFFIXES)})", source=str(folder))
    return files


def _read_published(file: Path | None) -> list[tuple[list[Any], list[Any], npt.NDArray[Any]]]:
    """Queries, documents and their cosines; an entry that is audio is {"audio": file name}."""
    if file is None:
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        matrices = []
        for name in ("audio_to_text", "text_to_audio"):
            for matrix in content.get(name, []):
                audio = [{"audio": one} for one in matrix["audio"]]
                sides = (audio, matrix["text"]) if name == "audio_to_text" else (matrix["text"], audio)
                cosine = np.array(matrix["cosine"], dtype=np.float64)
                matrices.append((*sides, cosine.reshape(len(sides[0]), len(sides[1]))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cannot be read as published cosines ({error!r})", source=str(file)) from error
    if not matrices:
        raise InputError("holds neither audio_to_text nor text_to_audio", source=str(file))
    return matrices
