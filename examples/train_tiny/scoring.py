"""Scores of a checkpoint on scenes that it never saw, through the package's own encoder."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText

from . import baselines, batches, mixing, scenes, wording

ASKED = ("gender", "background", "presence", "count", "first", "last", "event", "music")
ALIKE = ("background", "event", "music", "count", "gender")

LENGTHS = tuple(round(seconds * mixing.RATE) for seconds in (4.4, 6.0, 7.2))
"""Of clips, in frames; training has none of them."""

SEED = 1234


@dataclass
class Score:
    """One row of the card's tables.

    Attributes:
        name: what was asked of the model.
        value: share that is right.
        baselines: the same share for what does not use what it should need, by name.
        count: how many were asked.
    """

    name: str
    value: float
    baselines: dict[str, float] = field(default_factory=dict)
    count: int = 0


class Evaluation:
    """Scenes of the evaluation's own sounds, voices, sentences and combinations.

    Args:
        encoder: of the checkpoint.
        speech_folder: what speech.py wrote; without it, scenes have no speech.
        share: of the full number of scenes, and of sounds that they are made of.

    Attributes:
        used: every scene that was heard.
        bank: the sounds that they were made of.
    """

    def __init__(self, encoder: ALM2VecEncoder, speech_folder: Path | None, share: float = 1.0) -> None:
        self._encoder, self._share, self.with_speech = encoder, share, speech_folder is not None
        self.bank = mixing.bank(
            "eval", speech_folder, events=max(4, round(24 * share)), textures=max(3, round(12 * share))
        )
        self.used: set[scenes.Scene] = set()
        # What may be heard in order over each background.
        self._over = {
            background: [
                kinds
                for kinds in itertools.permutations(scenes.FOREGROUND, 2)
                if set(kinds) != set(scenes.SPEECH) and self.allowed(_once(kinds, background))
            ]
            for background in scenes.BACKGROUND
        }
        self._rng = random.Random(SEED)
        self._generator = torch.Generator().manual_seed(SEED)

    def number(self, full: int) -> int:
        """How many, in this share of the evaluation."""
        return max(20, round(full * self._share))

    def allowed(self, scene: scenes.Scene) -> bool:
        """Whether the bank has its sounds and training none of its pairs."""
        return scenes.fits(scene, "eval") and (self.with_speech or not scene.kinds & set(scenes.SPEECH))

    def clips(self, wanted: Sequence[scenes.Scene]) -> list[AudioClip]:
        """A recording of each scene: other sounds, times, levels, rooms and noise each time."""
        self.used.update(wanted)
        plans = [self._arranged(scene) for scene in wanted]
        made: dict[int, AudioClip] = {}
        for frames in LENGTHS:
            places = [place for place, (length, _) in enumerate(plans) if length == frames]
            for start in range(0, len(places), 64):
                chosen = places[start : start + 64]
                mixed = mixing.mix([plans[place][1] for place in chosen], self.bank, frames)
                for place, wave in zip(chosen, mixing.wear(mixed, self._generator), strict=True):
                    made[place] = AudioClip(wave.numpy(), sampling_rate=mixing.RATE)
        return [made[place] for place in range(len(wanted))]

    def _arranged(self, scene: scenes.Scene) -> tuple[int, mixing.Plan]:
        for _ in range(500):
            frames = self._rng.choice(LENGTHS)
            plan = mixing.arrange(scene, self.bank, frames, self._rng)
            if plan:
                return frames, plan
        raise ValueError(f"{scene} does not fit into a clip")

    def foreground(self) -> str:
        """Any kind that can be in front."""
        return self._rng.choice(scenes.FOREGROUND if self.with_speech else scenes.EVENTS)

    # text -> audio and audio -> text

    def mixtures(self, split: int = wording.TRAIN) -> list[Score]:
        """Among captions that are all different: the right clip for a caption, the right caption for a clip."""
        wanted = self._mixtures(self.number(500))
        return self._retrieval("mixtures" + _held_out(split), [wanted], split, "all")

    def singles(self, split: int = wording.TRAIN) -> list[Score]:
        """One kind alone, in several rounds of every kind."""
        kinds = [k for k in scenes.KINDS if self.with_speech or k not in scenes.SPEECH]
        wanted = [scenes.Scene((), k) if k in scenes.BACKGROUND else scenes.Scene(((k, 1),), None) for k in kinds]
        rounds = [wanted] * max(1, round(6 * self._share))
        return self._retrieval("single sounds" + _held_out(split), rounds, split, "all")

    def counted(self, split: int = wording.TRAIN) -> list[Score]:
        """Captions that say how often: every event, once to four times."""
        every = [scenes.Scene(((kind, n),), None) for kind in scenes.EVENTS for n in range(1, 5)]
        wanted = self._rng.sample(every, min(len(every), self.number(len(every))))
        return self._retrieval("how often" + _held_out(split), [wanted], split, "count")

    def one_of_several(self, split: int = wording.TRAIN) -> Score:
        """Captions that name one sound of a mixture: whether it is in the clip found first."""
        wanted = self._mixtures(self.number(300))
        (texts, about), clips = self._captions(wanted, split, "one"), self.clips(wanted)
        cosines = self._encoder.encode_query(texts) @ self._encoder.encode_document(clips).T
        true = batches.described(torch.tensor(about), wanted).numpy()
        shuffled = cosines[:, self._rng.sample(range(len(clips)), len(clips))]
        by_chance = {
            "chance": float(true.mean()),
            "shuffled audio": _first_is(shuffled, true),
            "length and loudness": _first_is(baselines.nearness(self.clips(wanted), clips), true),
        }
        name = f"one sound of several{_held_out(split)}, text → audio, first"
        return Score(name, _first_is(cosines, true), by_chance, len(texts))

    def _mixtures(self, count: int) -> list[scenes.Scene]:
        """Scenes of two or three sounds, once each, whose captions all differ."""
        found: dict[tuple[str | None, ...], scenes.Scene] = {}
        while len(found) < count:
            form = self._rng.random()
            while True:
                one, other = self.foreground(), self.foreground()
                parts = ((one, 1),) if form < 0.3 else ((one, 1), (other, 1))
                scene = scenes.Scene(parts, None if 0.3 <= form < 0.6 else self._rng.choice(scenes.BACKGROUND))
                if one != other and {one, other} != set(scenes.SPEECH) and self.allowed(scene):
                    break
            found[scene.key] = scene
        return list(found.values())

    def _captions(self, wanted: Sequence[scenes.Scene], split: int, say: str) -> tuple[list[str], list[list[int]]]:
        said = [batches.caption(scene, self._rng, split, say) for scene in wanted]
        return [text for text, _ in said], [about for _, about in said]

    def _retrieval(self, name: str, rounds: Sequence[Sequence[scenes.Scene]], split: int, say: str) -> list[Score]:
        """Captions and clips of scenes, found both ways; the mean of all rounds."""
        encode, found = self._encoder.encode, list[dict[str, tuple[np.ndarray, ...]]]()
        for wanted in rounds:
            texts, clips = self._captions(wanted, split, say)[0], self.clips(wanted)
            order = self._rng.sample(range(len(clips)), len(clips))
            forward = encode(texts, task="query") @ encode(clips, task="document").T
            backward = encode(clips, task="query") @ encode(texts, task="document").T
            near = baselines.nearness(self.clips(wanted), clips)
            to_audio, to_text = (forward, forward[:, order], near), (backward, backward[order], near.T)
            found.append({"text → audio": to_audio, "audio → text": to_text})
        count, scores = len(rounds[0]), []
        for way in found[0]:
            for first in (1, 10):
                value, shuffled, sized = np.mean(
                    [[_recall(s, first) for s in one[way]] for one in found], axis=0
                ).tolist()
                without = {"chance": first / count, "shuffled audio": shuffled, "length and loudness": sized}
                scores.append(Score(f"{name}, {way}, R@{first}", value, without, count * len(rounds)))
        return scores

    # audio + question -> answer

    def answers(self, aspect: str, split: int = wording.TRAIN) -> Score:
        """The nearest of the possible answers to a question about a clip."""
        cases = []
        while len(cases) < self.number(300):
            scene = self._scene_for(aspect, len(cases))
            possible = self._possible(aspect, scene)
            question = self._question(aspect, scene, split)
            if question is not None:
                cases.append((scene, *question, possible))
        clips = self.clips([scene for scene, *_ in cases])
        questions = [question for _, question, _, _ in cases]
        items = [AudioText(question, clip) for question, clip in zip(questions, clips, strict=True)]
        swapped = self._rng.sample(clips, len(clips))
        others = [AudioText(question, clip) for question, clip in zip(questions, swapped, strict=True)]
        elsewhere = [AudioText(self._other_question(aspect), clip) for clip in clips]
        texts = sorted({text for *_, possible in cases for text in possible.values()})
        rows = dict(zip(texts, self._encoder.encode_document(texts), strict=True))

        def right(found: list[AudioText]) -> float:
            vectors = self._encoder.encode_query(found)
            hits = 0
            for vector, (_, _, meaning, possible) in zip(vectors, cases, strict=True):
                hits += max(possible, key=lambda m: float(vector @ rows[possible[m]])) == meaning
            return hits / len(cases)

        meanings, allowed = [meaning for _, _, meaning, _ in cases], [possible for *_, possible in cases]
        without = {
            "chance": float(np.mean([1 / len(possible) for possible in allowed])),
            "shuffled audio": right(others),
            "shuffled question": right(elsewhere),
            "length and loudness": baselines.by_neighbours(baselines.sizes(clips), meanings, allowed),
        }
        if aspect == "gender":
            without["pitch"] = baselines.by_neighbours(baselines.pitches(clips), meanings, allowed)
        return Score(aspect + _held_out(split), right(items), without, len(cases))

    def _other_question(self, aspect: str) -> str:
        other = self._rng.choice([a for a in ASKED if a not in (aspect, "presence")])
        return self._rng.choice(_without_names(wording.ASKED[other][wording.TRAIN]))

    def _scene_for(self, aspect: str, number: int) -> scenes.Scene:
        """The next scene to ask an aspect of; the answers take turns, except where they depend on the scene."""
        meanings = (
            [] if aspect in ("presence", "first", "last") else sorted(self._possible(aspect, scenes.Scene((), None)))
        )
        while True:
            scene = scenes.draw(self._rng, "eval")
            if not self.allowed(scene):
                continue
            found = "any" if aspect == "presence" else scenes.answer_of(scene, aspect)
            if found and (not meanings or found == meanings[number % len(meanings)]):
                return scene

    def _possible(self, aspect: str, scene: scenes.Scene) -> dict[str, str]:
        first: Callable[[str], str] = lambda m: (wording.ANSWERS.get(m) or wording.NAMES[m])[0]  # noqa: E731
        meanings = {
            "gender": list(scenes.SPEECH),
            "background": [*scenes.BACKGROUND, "quiet"],
            "music": [*scenes.MUSIC, "no music"],
            "event": list(scenes.EVENTS),
            "count": ["1", "2", "3", "4"],
            "presence": ["yes", "no"],
            "first": [kind for kind, _ in scene.parts],
            "last": [kind for kind, _ in scene.parts],
        }[aspect]
        if aspect == "event" and self.with_speech:
            meanings += scenes.SPEECH
        return {meaning: first(meaning) for meaning in meanings}

    def _question(self, aspect: str, scene: scenes.Scene, split: int) -> tuple[str, str] | None:
        _, question, _, meaning = batches.ask(scene, self._rng, split, aspect)
        while not question:
            _, question, _, meaning = batches.ask(scene, self._rng, split, aspect)
        return question, meaning

    # audio -> audio, by one aspect

    def triplets(self, aspect: str, split: int = wording.TRAIN) -> list[Score]:
        """Of two clips, the one that shares the aspect and nothing else, rather than the one that shares all else."""
        cases = [self._triplet(aspect) for _ in range(self.number(300))]
        sides = [self.clips([case[i] for case in cases]) for i in range(3)]
        patterns = _without_names(wording.ASKED[aspect][split])
        questions = [self._rng.choice(patterns) for _ in cases]
        steering = [self._rng.choice(wording.STEERING[aspect][split]) for _ in cases]
        other_aspects = [self._rng.choice([a for a in wording.STEERING if a != aspect]) for _ in cases]
        other_questions = [self._other_question(aspect) for _ in cases]
        other_steering = [self._rng.choice(wording.STEERING[a][wording.TRAIN]) for a in other_aspects]

        order = self._rng.sample(range(len(cases)), len(cases))

        def right(embed: Callable[[list[AudioClip]], np.ndarray]) -> tuple[float, float]:
            """With the query's clip, and with that of another triplet."""
            query, alike, other = (embed(side) for side in sides)
            own, anothers = ((q * alike).sum(1) > (q * other).sum(1) for q in (query, query[order]))
            return float(np.mean(own)), float(np.mean(anothers))

        def asking(texts: list[str]) -> tuple[float, float]:
            return right(
                lambda side: self._encoder.encode_query(
                    [AudioText(text, clip) for text, clip in zip(texts, side, strict=True)]
                )
            )

        def steered(instructions: list[str]) -> tuple[float, float]:
            return right(lambda side: self._encoder.encode_query(side, instruction=instructions))

        every = [clip for side in sides for clip in side]
        without = {
            "chance": 0.5,
            "no question, no instruction": right(self._encoder.encode_query)[0],
            "length and loudness": baselines.by_distance(baselines.sizes(every)),
        }
        if aspect == "gender":
            without["pitch"] = baselines.by_distance(baselines.pitches(every))
        return [
            Score(
                f"{aspect}{_held_out(split)}, {form}",
                asked,
                without | {"shuffled audio": shuffled, "shuffled question": otherwise},
                len(cases),
            )
            for form, (asked, shuffled), (otherwise, _) in (
                ("by question", asking(questions), asking(other_questions)),
                ("by instruction", steered(steering), steered(other_steering)),
            )
        ]

    def _triplet(self, aspect: str) -> tuple[scenes.Scene, scenes.Scene, scenes.Scene]:
        """A query, what has the same in one aspect and nothing else, and what has all else the same.

        "All else" is two things wherever there is room for two: with one, a vector that knows nothing of the question
        may happen to hold more of the aspect than of the rest.
        """
        pick, scene = self._rng.choice, scenes.Scene
        while True:
            b1, b2 = self._rng.sample(
                {"music": scenes.MUSIC, "background": scenes.TEXTURES}.get(aspect, scenes.BACKGROUND), 2
            )
            if aspect in ("event", "count"):
                e1, e2 = self._rng.sample(scenes.EVENTS, 2)
                n, m = self._rng.sample(range(1, 5), 2)
                found = {
                    "event": (scene(((e1, 1),), b1), scene(((e1, 1),), b2), scene(((e2, 1),), b1)),
                    "count": (scene(((e1, n),), b1), scene(((e2, n),), b2), scene(((e1, m),), b1)),
                }[aspect]
            elif aspect == "gender":
                g1, g2 = self._rng.sample(scenes.SPEECH, 2)
                first, other = (pick(self._over[b]) for b in (b1, b2))
                if not (g1 in first and g1 in other) or {*first} & {*other} != {g1}:
                    continue
                swapped = tuple(g2 if kind == g1 else kind for kind in first)
                found = (_once(first, b1), _once(other, b2), _once(swapped, b1))
            else:
                first, other = (pick(self._over[b1]) for _ in range(2))
                if {*first} & {*other}:
                    continue
                found = (_once(first, b1), _once(other, b1), _once(first, b2))
            if all(map(self.allowed, found)):
                return found


def _once(kinds: Sequence[str], background: str) -> scenes.Scene:
    return scenes.Scene(tuple((kind, 1) for kind in kinds), background)


def _held_out(split: int) -> str:
    return ", held out" if split == wording.EVAL else ""


def _recall(cosines: np.ndarray, first: int) -> float:
    # What is as close as the right one counts against it: a model that tells nothing apart finds nothing.
    ranks = (cosines >= np.diagonal(cosines)[:, None]).sum(1)
    return float(np.mean((ranks >= 1) & (ranks <= first)))


def _first_is(cosines: np.ndarray, true: np.ndarray) -> float:
    # The same of what is as close as the best: all of it must be right.
    best = cosines >= cosines.max(1, keepdims=True)
    return float(np.mean(best.any(1) & (true | ~best).all(1)))


def _without_names(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if "{" not in pattern]
