"""Measure what the model card does not say: whether a vector depends on its neighbours, whether the model hears."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from itertools import combinations
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..audio.decoding import SAMPLING_RATE
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..errors import ALM2VecWarning
from ..inputs import AudioText, Item, Kind
from ..instructions import QUESTIONS, Task
from ..planning import DEFAULT_MAX_ITEMS
from .diagnosis import Diagnosis

# What the card shows, and what it only claims.
COMPOSED, TEXT = "a clip with a question as a query", "a text as a document"
SHOWN_IN_THE_CARD = (COMPOSED, TEXT)
LONG = "clips of 10 s"
ALONE = "a clip without a question as a document"

FORMS: dict[str, tuple[Kind, Task]] = {
    COMPOSED: ("audio+text", "query"),
    TEXT: ("text", "document"),
    "a text as a query": ("text", "query"),
    ALONE: ("audio", "document"),
    "a clip without a question as a query": ("audio", "query"),
    "a clip with a question as a document": ("audio+text", "document"),
}
"""Every way in which users can have something embedded."""

_ONE_LENGTH = "clips of one length"
TOO_LONG = 31.0
"""Seconds that a model may refuse: it was trained on clips of up to 30."""

_LENGTHS = (9.0, 12.5, TOO_LONG)
"""Seconds, on both sides of the 10.08 after which MiDashengLM's encoder cuts a clip into chunks."""

_T = TypeVar("_T")


def attempt(found: Diagnosis, what: str, work: Callable[[], _T]) -> _T | None:
    """What `work` returns; whatever the model raises meanwhile is a finding."""
    try:
        return work()
    except Exception as error:  # the model's own code may raise anything
        found.failed[what] = f"{type(error).__name__}: {error}"
        return None


def measure(encoder: ALM2VecEncoder, found: Diagnosis) -> None:
    """Fill in what does not need clips of the user's, in every form that the model takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ALM2VecWarning)  # the doctor knows that its clips are long
        for form, (kind, task) in FORMS.items():
            _measure_form(encoder, found, form, kind, task)


def depends_on_equals(name: str) -> bool:
    """Whether a list is one that batching="equal" still puts together."""
    return name.startswith(_ONE_LENGTH)


def _measure_form(encoder: ALM2VecEncoder, found: Diagnosis, form: str, kind: Kind, task: Task) -> None:
    lists = _lists(kind)
    first = next(iter(lists.values()))[0]
    if attempt(found, form, lambda: encoder.encode(first, task=task)) is None:
        return
    alone: dict[int, npt.NDArray[np.float32]] = {}
    for item in {id(item): item for items in lists.values() for item in items}.values():
        both = attempt(found, _called(item, task), lambda item=item: _twice(encoder, item, task))  # type: ignore[misc]
        if both is not None:
            alone[id(item)] = both[0]
            found.determinism = max(found.determinism or 0.0, float(np.abs(both[1] - both[0]).max()))
            found.wobble = max(found.wobble or 0.0, _apart(*both))
    for name, every in lists.items():
        items = [item for item in every if id(item) in alone]
        what = f"{name}, as {_PLURAL[task]}"
        together = attempt(found, what, lambda items=items: encoder.encode(items, task=task))  # type: ignore[misc]
        if together is not None and items:
            pairs = zip(together, items, strict=True)
            found.coupling[what] = max(_apart(row, alone[id(item)]) for row, item in pairs)
    different = [alone[id(item)] for item in next(iter(lists.values()))[:3] if id(item) in alone]
    if len(different) > 1:
        known = getattr(found, _TOLD_APART[kind])
        least = min(_apart(one, other) for one, other in combinations(different, 2))
        setattr(found, _TOLD_APART[kind], least if known is None else min(known, least))


_PLURAL: dict[Task, str] = {"query": "queries", "document": "documents"}
_TOLD_APART: dict[Kind, str] = {"audio+text": "hearing", "audio": "hearing_alone", "text": "reading"}


def _twice(encoder: ALM2VecEncoder, item: Item, task: Task) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return encoder.encode(item, task=task), encoder.encode(item, task=task)


def _called(item: Item, task: Task) -> str:
    """An item by itself, in words."""
    return f"{_named(item)} as a {task}"


def is_too_long(what: str) -> bool:
    """Whether a failure is that of a clip longer than those that the model was trained on."""
    return what.startswith(f"a clip of {TOO_LONG:g} s ")


def _named(item: Item) -> str:
    clip = item.audio if isinstance(item, AudioText) else item
    if isinstance(clip, AudioClip):
        with_question = "with" if isinstance(item, AudioText) else "without"
        return f"a clip of {len(clip.source) / SAMPLING_RATE:g} s {with_question} a question"
    return f"a text of {len(str(item))} characters"


def measure_speed(encoder: ALM2VecEncoder, found: Diagnosis) -> None:
    """Seconds of audio per second, in batches as the encoder makes them."""
    many: list[Item] = [_noise(10.0, seed, 0.1) for seed in range(8)]
    if ALONE in found.failed:
        many = [AudioText(QUESTIONS["background"], clip) for clip in many if isinstance(clip, AudioClip)]
    attempt(found, LONG, lambda: encoder.encode_document(many[:1]))
    began = time.perf_counter()
    if attempt(found, LONG, lambda: encoder.encode_document(many)) is not None:
        found.audio_seconds_per_second = 10.0 * len(many) / (time.perf_counter() - began)


def _lists(kind: Kind) -> dict[str, list[Item]]:
    """Lists in which no vector should depend on the others; the first begins with three items that differ."""
    if kind == "text":
        texts: list[Item] = ["a dog barks", "a dog barks while " + "a car passes and " * 20 + "rain falls"]
        texts += [f"{'very ' * (number % 7)}loud sound, number {number}" for number in range(DEFAULT_MAX_ITEMS - 2)]
        return {"texts of different lengths": texts, "texts of as many characters": ["abcdefghijk", "a b c d e f"]}
    sounds = _sounds()
    different = [*sounds[:3], *(_noise(seconds, 3, 0.02) for seconds in _LENGTHS)]
    if kind == "audio":
        return {_ONE_LENGTH: list(sounds), "clips of different lengths": list(different)}
    question = QUESTIONS["background"]
    return {
        f"{_ONE_LENGTH} and question": [AudioText(question, sound) for sound in sounds],
        "clips of different lengths and one question": [AudioText(question, sound) for sound in different],
        "questions of different lengths": [
            AudioText(question, sounds[0]),
            AudioText(question + " Take all of it." * 8, sounds[1]),
        ],
    }


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return max(0.0, float(1.0 - (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))))


def _sounds() -> list[AudioClip]:
    """As many clips of 2 s as go into one batch: noise, a tone, loud noise, and noise of all levels."""
    tone = _clip(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLING_RATE) / SAMPLING_RATE))
    more = [_noise(2.0, seed, 0.9 / (1 + seed % 5) ** 2) for seed in range(3, DEFAULT_MAX_ITEMS)]
    return [_noise(2.0, 0, 0.02), tone, _noise(2.0, 2, 0.9), *more]


def _noise(seconds: float, seed: int, level: float) -> AudioClip:
    rng = np.random.default_rng(seed)
    return _clip(level * rng.uniform(-1.0, 1.0, round(seconds * SAMPLING_RATE)))


def _clip(samples: npt.NDArray[np.float64]) -> AudioClip:
    return AudioClip(samples.astype(np.float32), sampling_rate=SAMPLING_RATE)
