"""What is in a clip, before it is a sound: drawn at random, in training and evaluation from disjoint combinations."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace

from . import sounds

EVENTS = tuple(sorted(sounds.EVENTS))
TEXTURES = tuple(sorted(sounds.TEXTURES))
MUSIC = tuple(sorted(sounds.MUSIC))
SPEECH = ("man", "woman")
FOREGROUND = EVENTS + SPEECH
BACKGROUND = TEXTURES + MUSIC
KINDS = FOREGROUND + BACKGROUND
HELD_OUT_SHARE = 0.25


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
    def combinations(self) -> list[tuple[str, str, str]]:
        """The pairs of classes in it, of which training and evaluation have different ones."""
        pairs = [("over", kind, self.background) for kind, _ in self.parts if self.background]
        if len(self.parts) == 2:
            pairs.append(("then", self.parts[0][0], self.parts[1][0]))
        return pairs


def is_held_out(pair: tuple[str, str, str]) -> bool:
    """Whether a pair of classes is the evaluation's; the same in every run."""
    return zlib.crc32("/".join(pair).encode()) % 1000 < 1000 * HELD_OUT_SHARE


def fits(scene: Scene, split: str) -> bool:
    """Training has no held-out pair; in the evaluation the pair that makes a mixture, or its order, is held out."""
    pairs = scene.combinations
    if split == "train":
        return not any(is_held_out(pair) for pair in pairs)
    return not pairs or is_held_out(pairs[-1])


def draw(rng: random.Random, split: str) -> Scene:
    """A scene of any form."""
    while True:
        form = rng.random()
        background = rng.choice(TEXTURES if rng.random() < 0.55 else MUSIC) if rng.random() < 0.62 else None
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
