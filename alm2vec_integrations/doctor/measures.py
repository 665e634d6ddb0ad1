"""Measure what the model card does not say: whether a vector depends on its neighbours, whether the model hears."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..audio.decoding import SAMPLING_RATE
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..inputs import AudioText, Item
from ..instructions import QUESTIONS, Task
from .diagnosis import Diagnosis

COMPOSED, TEXT = "a clip with a question as a query", "a text as a document"
SHOWN_IN_THE_CARD = (COMPOSED, TEXT)
LONG = "clips of 10 s"
TEXT_QUERY, ALONE = "a text as a query", "a clip without a question"

EQUAL_LENGTHS = ("clips of one length and question", "clips of one length without a question")
"""Lists that batching="equal" still puts together."""

_T = TypeVar("_T")


def attempt(found: Diagnosis, what: str, work: Callable[[], _T]) -> _T | None:
    """What `work` returns; whatever the model raises meanwhile is a finding."""
    try:
        return work()
    except Exception as error:  # the model's own code may raise anything
        found.failed[what] = f"{type(error).__name__}: {error}"
        return None


def measure(encoder: ALM2VecEncoder, found: Diagnosis) -> None:
    """Fill in what does not need clips of the user's."""
    sounds = _sounds()
    item = AudioText(QUESTIONS["background"], sounds[0])
    once = attempt(found, COMPOSED, lambda: encoder.encode_query(item))
    again = attempt(found, COMPOSED, lambda: encoder.encode_query(item))
    text = attempt(found, TEXT, lambda: encoder.encode_document("a dog barks"))
    if once is None or again is None or text is None:
        return
    found.determinism = float(np.abs(again - once).max())
    asked = [AudioText(item.text, sound) for sound in sounds]
    found.hearing = _least_apart(attempt(found, COMPOSED, lambda: [encoder.encode_query(one) for one in asked]))
    attempt(found, TEXT_QUERY, lambda: encoder.encode_query("a dog barks"))
    alone = attempt(found, ALONE, lambda: [encoder.encode_document(sound) for sound in sounds])
    found.hearing_alone = _least_apart(alone)
    for name, (items, task) in _lists(item.text, clips_alone=alone is not None).items():
        both = attempt(found, name, lambda items=items, task=task: _coupling(encoder, items, task))  # type: ignore[misc]
        if both is None:
            attempt(found, each_of(name), lambda items=items, task=task: [encoder.encode(i, task=task) for i in items])  # type: ignore[misc]
        else:
            found.coupling[name], random = both
            found.determinism = max(found.determinism, random)


def each_of(name: str) -> str:
    """What the items of a list are called when each is embedded by itself."""
    return f"each alone of the {name}"


def measure_speed(encoder: ALM2VecEncoder, found: Diagnosis) -> None:
    """Seconds of audio per second, in batches as the encoder makes them."""
    many: list[Item] = [_noise(10.0, seed, 0.1) for seed in range(8)]
    if ALONE in found.failed:
        many = [AudioText(QUESTIONS["background"], clip) for clip in many if isinstance(clip, AudioClip)]
    attempt(found, LONG, lambda: encoder.encode_document(many[:1]))
    began = time.perf_counter()
    if attempt(found, LONG, lambda: encoder.encode_document(many)) is not None:
        found.audio_seconds_per_second = 10.0 * len(many) / (time.perf_counter() - began)


def _lists(question: str, *, clips_alone: bool) -> dict[str, tuple[list[Item], Task]]:
    """Lists in which no vector should depend on the others, and the task to embed them with."""
    sounds, longer = _sounds(), _noise(9.0, 3, 0.02)
    lists: dict[str, tuple[list[Item], Task]] = {
        "clips of one length and question": ([AudioText(question, sound) for sound in sounds], "query"),
        "clips of different lengths": ([AudioText(question, sound) for sound in (*sounds, longer)], "query"),
        "questions of different lengths": (
            [AudioText(question, sounds[0]), AudioText(question + " Take all of it." * 8, sounds[1])],
            "query",
        ),
        "texts of different lengths": (
            ["a dog barks", "a dog barks while " + "a car passes and " * 20 + "rain falls"],
            "document",
        ),
        "texts of as many characters": (["abcdefghijk", "a b c d e f"], "document"),
    }
    if clips_alone:
        lists["clips of one length without a question"] = (list(sounds), "document")
        lists["clips of different lengths without a question"] = ([*sounds, longer], "document")
    return lists


def _coupling(encoder: ALM2VecEncoder, items: Sequence[Item], task: Task) -> tuple[float, float]:
    """The largest 1 - cosine between an item in the list and alone, and the largest difference of it alone, twice."""
    together = encoder.encode(items, task=task)
    alone = [encoder.encode(item, task=task) for item in items]
    again = [encoder.encode(item, task=task) for item in items]
    apart = max(_apart(row, one) for row, one in zip(together, alone, strict=True))
    return apart, max(float(np.abs(one - other).max()) for one, other in zip(alone, again, strict=True))


def _least_apart(vectors: list[Any] | None) -> float | None:
    if vectors is None:
        return None
    return min(_apart(one, other) for i, one in enumerate(vectors) for other in vectors[:i])


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return max(0.0, float(1.0 - (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))))


def _sounds() -> list[AudioClip]:
    """Noise, a tone, and loud noise, all of 2 s."""
    tone = _clip(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLING_RATE) / SAMPLING_RATE))
    return [_noise(2.0, 0, 0.02), tone, _noise(2.0, 2, 0.9)]


def _noise(seconds: float, seed: int, level: float) -> AudioClip:
    rng = np.random.default_rng(seed)
    return _clip(level * rng.uniform(-1.0, 1.0, round(seconds * SAMPLING_RATE)))


def _clip(samples: npt.NDArray[np.float64]) -> AudioClip:
    return AudioClip(samples.astype(np.float32), sampling_rate=SAMPLING_RATE)
