"""What is in a clip, before it is a sound: drawn at random, in training and evaluation from disjoint combinations."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import sounds

EVENTS = tuple(sorted(sounds.EVENTS))
TEXTURES = tuple(sorted(sounds.TEXTURES))
MUSIC = tuple(sorted(sounds.MUSIC))
SPEECH = ("man", "woman")
FOREGROUND = EVENTS + SPEECH
BACKGROUND = TEXTURES + MUSIC
KINDS = FOREGROUND + BACKGROUND


@dataclass(frozen=True)
class Scene:
    """A foreground of up to two parts, in order, over a background.

    Attributes:
        parts: (kind, how often), none to two of them.
        background: a texture, music, or None.
    """

    parts: tuple[tuple[str, int], ...]
    background: str | None

    @property
    def kinds(self) -> frozenset[str]:
        """Everything that is heard."""
        return frozenset(kind for kind, _ in self.parts) | ({self.background} if self.background else frozenset())

    @property
    def key(self) -> tuple[str | None, ...]:
        """What a caption without numbers says."""
        return (*(kind for kind, _ in self.parts), "|", self.background)

    @property
    def pairs(self) -> frozenset[frozenset[str]]:
        """The pairs of classes that are heard together in it, whatever their order."""
        return frozenset(frozenset(pair) for pair in itertools.combinations(self.kinds, 2))


def _least(of: Iterable[str], beside: str, number: int) -> list[str]:
    """Some of them, chosen by nothing but their names: the same in every run and every version of Python."""
    return sorted(of, key=lambda kind: hashlib.sha256("/".join(sorted((kind, beside))).encode()).digest())[:number]


def _held_out() -> frozenset[frozenset[str]]:
    """A quarter of the pairs, so that every kind has three textures and two musics, and others to be in order with.

    A man and a woman have the same, or what is beside a voice would tell who it is.
    """
    chosen = set()
    for kind in (*EVENTS, "speech"):
        beside = _least(TEXTURES, kind, 3) + _least(MUSIC, kind, 2) + _least({*EVENTS, "speech"} - {kind}, kind, 6)
        for other in beside:
            one, two = (SPEECH if k == "speech" else (k,) for k in (kind, other))
            chosen |= {frozenset(pair) for pair in itertools.product(one, two)}
    return frozenset(chosen)


HELD_OUT = _held_out()
"""Pairs of classes that no clip of training has together, one over the other or in either order."""


def fits(scene: Scene, split: str) -> bool:
    """Training has no held-out pair; in the evaluation every pair is held out."""
    return scene.pairs <= HELD_OUT if split == "eval" else not scene.pairs & HELD_OUT


def draw(rng: random.Random, split: str) -> Scene:
    """A scene of any form; how often each form is drawn does not depend on the split."""
    form, over = rng.random(), rng.random() < 0.62
    while True:
        background = rng.choice(TEXTURES if rng.random() < 0.55 else MUSIC) if over else None
        if form < 0.08:
            scene = Scene((), background or rng.choice(BACKGROUND))
        elif form < 0.60:
            kind = draw_foreground(rng)
            scene = Scene(((kind, draw_count(kind, rng)),), background)
        else:
            one, other = draw_foreground(rng), draw_foreground(rng)
            if one == other or {one, other} == set(SPEECH):
                continue
            scene = Scene(
                (
                    (one, 1 if one in SPEECH else rng.randint(1, 2)),
                    (other, 1 if other in SPEECH else rng.randint(1, 2)),
                ),
                background,
            )
        if fits(scene, split):
            return scene


def draw_foreground(rng: random.Random) -> str:
    """Speech more often than any one event."""
    return rng.choice(SPEECH) if rng.random() < 0.25 else rng.choice(EVENTS)


def draw_count(kind: str, rng: random.Random) -> int:
    """Of one kind alone."""
    return 1 if kind in SPEECH else rng.randint(1, 4)


def twin(scene: Scene, rng: random.Random, split: str) -> Scene:
    """The same scene but for one thing: order, background, count, speaker or event."""
    for _ in range(20):
        change = rng.choice(["order", "background", "count", "part", "part"])
        parts, other = list(scene.parts), scene
        if change == "order" and len(parts) == 2:
            other = replace(scene, parts=(parts[1], parts[0]))
        elif change == "background":
            other = replace(scene, background=rng.choice([*BACKGROUND, None] if parts else BACKGROUND))
        elif change == "count" and len(parts) == 1 and parts[0][0] not in SPEECH:
            other = replace(scene, parts=((parts[0][0], rng.randint(1, 4)),))
        elif change == "part" and parts:
            place = rng.randrange(len(parts))
            kind, count = parts[place]
            new = {"man": "woman", "woman": "man"}.get(kind) if rng.random() < 0.8 else None
            new = new or rng.choice(EVENTS)
            parts[place] = (new, 1 if new in SPEECH else count)
            if len({k for k, _ in parts}) == len(parts) and {k for k, _ in parts} != set(SPEECH):
                other = replace(scene, parts=tuple(parts))
        if other != scene and fits(other, split):
            return other
    return draw(rng, split)


def answer_of(scene: Scene, aspect: str) -> str | None:
    """What the answer to a question about an aspect means; None if the scene has none."""
    one = scene.parts[0] if len(scene.parts) == 1 else None
    speakers = [kind for kind, _ in scene.parts if kind in SPEECH]
    if aspect == "background":
        return scene.background or "quiet" if scene.parts else None
    if aspect == "music":
        return scene.background if scene.background in MUSIC else "no music"
    if aspect == "event":
        return one[0] if one else None
    if aspect == "count":
        return str(one[1]) if one and one[0] not in SPEECH else None
    if aspect == "gender":
        return speakers[0] if len(speakers) == 1 else None
    if aspect in ("first", "last"):
        return scene.parts[0 if aspect == "first" else -1][0] if len(scene.parts) == 2 else None
    raise ValueError(aspect)
