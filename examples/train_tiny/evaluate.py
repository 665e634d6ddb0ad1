"""Measure alm2vec-tiny on scenes that it never saw, through the package's own encoder, and write its card.

python -m train_tiny.evaluate FOLDER --speech SPEECH             prints the tables
python -m train_tiny.evaluate FOLDER --speech SPEECH --card      and writes FOLDER/README.md
python -m train_tiny.evaluate FOLDER --share 0.1                 a tenth of it, without speech

--recordings DIR: FLAC files without music, and of AudioCaps those that SPEAKERS names.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText

from . import batches, mixing, scenes, speech, wording
from .card import table, write_card

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
    """

    def __init__(self, encoder: ALM2VecEncoder, speech_folder: Path | None, share: float = 1.0) -> None:
        self._encoder, self._share, self.with_speech = encoder, share, speech_folder is not None
        self._bank = mixing.bank(
            "eval", speech_folder, events=max(4, round(24 * share)), textures=max(3, round(12 * share))
        )
        assert_disjoint(speech_folder)
        self._rng = random.Random(SEED)
        self._generator = torch.Generator().manual_seed(SEED)

    def number(self, full: int) -> int:
        """How many, in this share of the evaluation."""
        return max(20, round(full * self._share))

    def allowed(self, scene: scenes.Scene) -> bool:
        """Whether the bank has its sounds and training has not its combination."""
        return scenes.fits(scene, "eval") and (self.with_speech or not scene.kinds & set(scenes.SPEECH))

    def clips(self, wanted: Sequence[scenes.Scene]) -> list[AudioClip]:
        """A recording of each scene: other sounds, times, levels, rooms and noise each time."""
        plans = [self._arranged(scene) for scene in wanted]
        made: dict[int, AudioClip] = {}
        for frames in LENGTHS:
            places = [place for place, (length, _) in enumerate(plans) if length == frames]
            for start in range(0, len(places), 64):
                chosen = places[start : start + 64]
                mixed = mixing.mix([plans[place][1] for place in chosen], self._bank, frames)
                for place, wave in zip(chosen, mixing.wear(mixed, self._generator), strict=True):
                    made[place] = AudioClip(wave.numpy(), sampling_rate=mixing.RATE)
        return [made[place] for place in range(len(wanted))]

    def _arranged(self, scene: scenes.Scene) -> tuple[int, mixing.Plan]:
        for _ in range(500):
            frames = self._rng.choice(LENGTHS)
            plan = mixing.arrange(scene, self._bank, frames, self._rng)
            if plan:
                return frames, plan
        raise ValueError(f"{scene} does not fit into a clip")

    def foreground(self) -> str:
        """Any kind that can be in front."""
        return self._rng.choice(scenes.FOREGROUND if self.with_speech else scenes.EVENTS)

    # text -> audio and audio -> text

    def mixtures(self, split: int = wording.TRAIN) -> list[Score]:
        """Among captions that are all different: the right clip for a caption, the right caption for a clip."""
        found: dict[Any, scenes.Scene] = {}
        count = self.number(500)
        while len(found) < count:
            background = self._rng.choice(scenes.BACKGROUND)
            one, other = self.foreground(), self.foreground()
            form = self._rng.random()
            parts = ((one, 1),) if form < 0.3 else ((one, 1), (other, 1))
            scene = scenes.Scene(parts, None if 0.3 <= form < 0.6 else background)
            if one == other or {one, other} == set(scenes.SPEECH) or not self.allowed(scene):
                continue
            found[scene.key] = scene
        wanted = list(found.values())
        texts = [batches.caption(scene, self._rng, split, full=True)[0] for scene in wanted]
        return self._retrieval("mixtures" + _held_out(split), texts, self.clips(wanted))

    def singles(self, split: int = wording.TRAIN) -> list[Score]:
        """One kind alone."""
        kinds = [k for k in scenes.KINDS if self.with_speech or k not in scenes.SPEECH]
        results = defaultdict(list)
        for _ in range(max(1, round(6 * self._share))):
            wanted = [scenes.Scene((), k) if k in scenes.BACKGROUND else scenes.Scene(((k, 1),), None) for k in kinds]
            texts = [batches.caption(scene, self._rng, split, full=True)[0] for scene in wanted]
            for score in self._retrieval("single sounds" + _held_out(split), texts, self.clips(wanted)):
                results[score.name].append(score)
        return [
            Score(name, float(np.mean([s.value for s in scores])), scores[0].baselines, sum(s.count for s in scores))
            for name, scores in results.items()
        ]

    def _retrieval(self, name: str, texts: list[str], clips: list[AudioClip]) -> list[Score]:
        encode = self._encoder.encode
        forward = encode(texts, task="query") @ encode(clips, task="document").T
        backward = encode(clips, task="query") @ encode(texts, task="document").T
        shuffled = forward[:, self._rng.sample(range(len(clips)), len(clips))]
        found = []
        for way, cosines in (("text → audio", forward), ("audio → text", backward)):
            for first in (1, 10):
                chance = {"chance": first / len(texts), "shuffled audio": _recall(shuffled, first)}
                found.append(Score(f"{name}, {way}, R@{first}", _recall(cosines, first), chance, len(texts)))
        return found

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

        baselines = {
            "chance": float(np.mean([1 / len(possible) for *_, possible in cases])),
            "shuffled audio": right(others),
            "shuffled question": right(elsewhere),
            "length and loudness": _by_size(clips, [meaning for _, _, meaning, _ in cases]),
        }
        return Score(aspect + _held_out(split), right(items), baselines, len(cases))

    def _other_question(self, aspect: str) -> str:
        other = self._rng.choice([a for a in ASKED if a not in (aspect, "presence")])
        return self._rng.choice(_without_names(wording.ASKED[other][wording.TRAIN]))

    def _scene_for(self, aspect: str, number: int) -> scenes.Scene:
        """Every answer is right as often as every other."""
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

        def right(embed: Callable[[list[AudioClip]], np.ndarray]) -> float:
            query, alike, other = (embed(side) for side in sides)
            return float(np.mean((query * alike).sum(1) > (query * other).sum(1)))

        def asking(texts: list[str]) -> float:
            return right(
                lambda side: self._encoder.encode_query(
                    [AudioText(text, clip) for text, clip in zip(texts, side, strict=True)]
                )
            )

        def steered(instructions: list[str]) -> float:
            return right(lambda side: self._encoder.encode_query(side, instruction=instructions))

        sizes = _sizes([clip for side in sides for clip in side]).reshape(3, len(cases), 2)
        nearer = np.linalg.norm(sizes[0] - sizes[1], axis=1) < np.linalg.norm(sizes[0] - sizes[2], axis=1)
        baselines = {
            "chance": 0.5,
            "no question, no instruction": right(self._encoder.encode_document),
            "length and loudness": float(np.mean(nearer)),
        }
        named = aspect + _held_out(split)
        return [
            Score(
                f"{named}, by question",
                asking(questions),
                baselines | {"shuffled question": asking(other_questions)},
                len(cases),
            ),
            Score(
                f"{named}, by instruction",
                steered(steering),
                baselines | {"shuffled question": steered(other_steering)},
                len(cases),
            ),
        ]

    def _triplet(self, aspect: str) -> tuple[scenes.Scene, scenes.Scene, scenes.Scene]:
        pick, scene = self._rng.choice, scenes.Scene
        while True:
            e1, e2 = self._rng.sample(scenes.EVENTS, 2)
            places = (
                scenes.MUSIC if aspect == "music" else scenes.TEXTURES if aspect == "background" else scenes.BACKGROUND
            )
            b1, b2 = self._rng.sample(places, 2)
            n, m = self._rng.sample(range(1, 5), 2)
            g1 = pick(scenes.SPEECH)
            g2 = "woman" if g1 == "man" else "man"
            found = {
                "background": (scene(((e1, 1),), b1), scene(((e2, 1),), b1), scene(((e1, 1),), b2)),
                "music": (scene(((e1, 1),), b1), scene(((e2, 1),), b1), scene(((e1, 1),), b2)),
                "event": (scene(((e1, 1),), b1), scene(((e1, 1),), b2), scene(((e2, 1),), b1)),
                "count": (scene(((e1, n),), b1), scene(((e2, n),), b2), scene(((e1, m),), b1)),
                "gender": (scene(((g1, 1),), b1), scene(((g1, 1),), b2), scene(((g2, 1),), b1)),
            }[aspect]
            # Of a triplet, the query's combination is the evaluation's own.
            if self.allowed(found[0]):
                return found


def assert_disjoint(speech_folder: Path | None) -> None:
    """Training and evaluation share no voice, sentence, sound, pair of classes or wording."""
    if speech_folder:
        train, test = ([row for row, _ in speech.read(speech_folder, split)] for split in ("train", "eval"))
        for what in ("name", "text"):
            assert not {row[what] for row in train} & {row[what] for row in test}, what
    for kind in (*scenes.EVENTS, *scenes.BACKGROUND):
        assert not np.array_equal(mixing.sounds.make(kind, "train", 0), mixing.sounds.make(kind, "eval", 0)), kind
    rng = random.Random(0)
    seen = {pair for _ in range(20_000) for pair in scenes.draw(rng, "train").combinations}
    assert not any(scenes.is_held_out(pair) for pair in seen)
    for wordings in (wording.CAPTIONS, wording.ASKED, wording.STEERING):
        for patterns, held in wordings.values():
            assert not {p.lower() for p in patterns} & {p.lower() for p in held}


def _held_out(split: int) -> str:
    return ", held out" if split == wording.EVAL else ""


def _recall(cosines: np.ndarray, first: int) -> float:
    # What is as close as the right one counts against it: a model that tells nothing apart finds nothing.
    ranks = (cosines >= np.diagonal(cosines)[:, None]).sum(1)
    return float(np.mean((ranks >= 1) & (ranks <= first)))


def _without_names(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if "{" not in pattern]


def _sizes(clips: Sequence[AudioClip]) -> np.ndarray:
    """Length and loudness of each clip, both to a spread of 1: [clips, 2]."""
    found = [(len(clip.source), np.log(np.sqrt(np.mean(clip.source**2)) + 1e-6)) for clip in clips]
    sizes = np.array(found, dtype=np.float64)
    return (sizes - sizes.mean(0)) / (sizes.std(0) + 1e-9)


def _by_size(clips: Sequence[AudioClip], meanings: Sequence[str]) -> float:
    """What the five other clips nearest in length and loudness say."""
    sizes = _sizes(clips)
    hits = 0
    for i, meaning in enumerate(meanings):
        near = np.argsort(np.linalg.norm(sizes - sizes[i], axis=1), kind="stable")
        votes = [meanings[j] for j in near if j != i][:5]
        hits += max(sorted(set(votes)), key=votes.count) == meaning
    return hits / len(meanings)


ASKED = ("gender", "background", "presence", "count", "first", "last", "event", "music")
ALIKE = ("background", "event", "music", "count", "gender")


def run(encoder: ALM2VecEncoder, speech_folder: Path | None, share: float = 1.0) -> dict[str, list[Score]]:
    """Every table."""
    evaluation = Evaluation(encoder, speech_folder, share)
    asked = [aspect for aspect in ASKED if evaluation.with_speech or aspect != "gender"]
    alike = [aspect for aspect in ALIKE if evaluation.with_speech or aspect != "gender"]
    seen, held = wording.TRAIN, wording.EVAL
    return {
        "Text and audio": [*evaluation.mixtures(), *evaluation.singles()],
        "Audio and audio, by one aspect": [score for aspect in alike for score in evaluation.triplets(aspect, seen)],
        "Audio and question to answer": [evaluation.answers(aspect, seen) for aspect in asked],
        "Wordings that training never had": [
            *evaluation.mixtures(held),
            *evaluation.singles(held),
            *[score for aspect in alike for score in evaluation.triplets(aspect, held)],
            *[evaluation.answers(aspect, held) for aspect in asked],
        ],
    }


SPEAKERS = {
    "audiocaps_jid4t-FzUn0": "man", "audiocaps_1L_OyngNZMA": "man", "audiocaps_CYUlLTKoa1Y": "woman",
    "audiocaps_mJ6ZO3xEcgw": "woman",
}  # fmt: skip
"""Who is heard in recordings of AudioCaps whose captions name one person; no caption speaks of music."""


def recordings(encoder: ALM2VecEncoder, folder: Path) -> str:
    """A smoke test on recordings of people and places: who speaks, and how often music is heard where there is none."""
    files = sorted(folder.glob("*.flac"))
    clips = [AudioClip(file, end_seconds=min(10.0, soundfile.info(file).duration)) for file in files]

    def answered(question: str, answers: Sequence[str]) -> list[int]:
        asked = encoder.encode_query([AudioText(question, clip) for clip in clips])
        return [int(best) for best in np.argmax(asked @ encoder.encode_document(list(answers)).T, axis=1)]

    genders = answered(wording.QUESTIONS["gender"], ["male", "female"])
    right = [
        scenes.SPEECH[found] == SPEAKERS[file.stem]
        for file, found in zip(files, genders, strict=True)
        if file.stem in SPEAKERS
    ]
    music = [*(wording.NAMES[kind][0] for kind in scenes.MUSIC), "no music"]
    alarms = sum(found != len(scenes.MUSIC) for found in answered("What music is playing?", music))
    return (
        f"A smoke test, no more: of {len(right)} recordings of one man or woman it names {sum(right)} rightly; in "
        f"{len(files)} recordings without music it hears music in {alarms}."
    )


def main() -> None:
    """Measure, print, and write the card if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--card", action="store_true")
    arguments = parser.parse_args()
    began = time.time()
    with ALM2VecEncoder(arguments.folder.absolute(), trust_remote_code=True, device="cpu") as encoder:
        results = run(encoder, arguments.speech, arguments.share)
        smoke = recordings(encoder, arguments.recordings) if arguments.recordings else ""
    for title, scores in results.items():
        print(f"\n## {title}\n\n{table(scores)}")
    print(f"\n{smoke}\n{time.time() - began:.0f} s")
    if arguments.card:
        write_card(arguments.folder, results, smoke)


if __name__ == "__main__":
    main()
