"""That training and evaluation have nothing in common that a score could come from."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from . import mixing, scenes, sounds, speech, wording

DRAWN = 20_000
NUMBERS = 3


def assert_disjoint(used: Iterable[scenes.Scene], bank: mixing.Bank, speech_folder: Path | None) -> None:
    """Training draws no pair of classes of the scenes used, and has no sound, voice, sentence or wording of theirs.

    Args:
        used: the scenes of the evaluation.
        bank: the sounds that they were made of.
        speech_folder: what speech.py wrote, if speech was used.

    Raises:
        AssertionError: naming what both have.
    """
    evaluated = {pair for scene in used for pair in scene.pairs}
    _must(bool(evaluated), "the evaluation used no pair of classes")
    common = evaluated & trained_pairs()
    _must(not common, f"trained: {sorted(map(sorted, common))}")
    _must(bool(bank.voices) == bool(speech_folder), "speech in the bank, and no folder to compare it with")
    if speech_folder:
        trained = [row for row, _ in speech.read(speech_folder, "train")]
        for what, heard in (("name", bank.voices), ("text", bank.texts)):
            both = {row[what] for row in trained} & set(heard.values())
            _must(not both, f"{what} in training and evaluation: {sorted(both)}")
    for kind in (*scenes.EVENTS, *scenes.BACKGROUND):
        matrix = bank.foreground if kind in scenes.EVENTS else bank.background
        heard_here = {_start(row) for row in matrix[bank.rows[kind]].numpy()}
        trained_here = {_start(sounds.make(kind, "train", number)) for number in range(NUMBERS)}
        _must(len(trained_here) == NUMBERS, f"{kind} has the same sound twice")
        _must(not heard_here & trained_here, f"a sound of {kind} is in training and evaluation")
    for wordings in (wording.CAPTIONS, wording.ASKED, wording.STEERING):
        for name, (patterns, held) in wordings.items():
            both = {_plain(p) for p in patterns} & {_plain(p) for p in held}
            _must(bool(held), f"no wordings of {name} in the evaluation")
            _must(not both, f"wordings of {name} in training and evaluation: {sorted(both)}")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)  # also where Python leaves assert statements out


def _start(samples: np.ndarray) -> bytes:
    """The first quarter of a second, as banks keep it, without the zeros that they fill up short sounds with."""
    return samples[: sounds.RATE // 4].astype(np.float16).tobytes().rstrip(b"\0")


@cache
def trained_pairs() -> frozenset[frozenset[str]]:
    """The pairs of classes in many scenes of training, drawn and made twins of as training does."""
    rng = random.Random(0)
    drawn = [scenes.draw(rng, "train") for _ in range(DRAWN)]
    every = (*drawn, *(scenes.twin(one, rng, "train") for one in drawn))
    return frozenset(pair for scene in every for pair in scene.pairs)


def _plain(pattern: str) -> str:
    return pattern.lower().rstrip(".?")
