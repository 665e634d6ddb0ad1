"""That training and evaluation have nothing in common that a score could come from."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from . import scenes, sounds, speech, wording

DRAWN = 20_000
NUMBERS = 3


def assert_disjoint(used: Iterable[scenes.Scene], speech_folder: Path | None) -> None:
    """Training draws no pair of classes of the scenes used, and shares no voice, sentence, sound or wording.

    Args:
        used: the scenes of the evaluation.
        speech_folder: what speech.py wrote, if speech was used.

    Raises:
        AssertionError: naming what both have.
    """
    evaluated = {pair for scene in used for pair in scene.pairs}
    assert evaluated, "the evaluation used no pair of classes"
    common = evaluated & trained_pairs()
    assert not common, f"trained: {sorted(map(sorted, common))}"
    if speech_folder:
        train, test = ([row for row, _ in speech.read(speech_folder, split)] for split in ("train", "eval"))
        for what in ("name", "text"):
            both = {row[what] for row in train} & {row[what] for row in test}
            assert train, "no speech in training"
            assert test, "no speech in the evaluation"
            assert not both, f"{what} in training and evaluation: {sorted(both)}"
    for kind in (*scenes.EVENTS, *scenes.BACKGROUND):
        heard, other = (
            {sounds.make(kind, split, number).tobytes() for number in range(NUMBERS)} for split in ("train", "eval")
        )
        assert len(heard | other) == 2 * NUMBERS, f"{kind} has the same sound twice"
    for wordings in (wording.CAPTIONS, wording.ASKED, wording.STEERING):
        for name, (patterns, held) in wordings.items():
            both = {_plain(p) for p in patterns} & {_plain(p) for p in held}
            assert held, f"no wordings of {name} in the evaluation"
            assert not both, f"wordings of {name} in training and evaluation: {sorted(both)}"


def trained_pairs() -> set[frozenset[str]]:
    """The pairs of classes in many scenes of training, drawn and made twins of as training does."""
    rng = random.Random(0)
    drawn = [scenes.draw(rng, "train") for _ in range(DRAWN)]
    return {pair for scene in (*drawn, *(scenes.twin(one, rng, "train") for one in drawn)) for pair in scene.pairs}


def _plain(pattern: str) -> str:
    return pattern.lower().rstrip(".?")
