"""Training batches: scenes with captions, questions and answers, drawn and spelled out in worker processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from . import mixing, scenes, wording

FRAMES_PER_TOKEN = 160 * 4 * 5  # hop, frames in a patch, patches in a token
_KIND = {kind: number for number, kind in enumerate(scenes.KINDS)}
_ASPECTS = ("background", "event", "music", "count", "gender", "first", "last", "presence")
_WEIGHTS = {
    "background": 1.3,
    "event": 1.0,
    "music": 0.9,
    "count": 1.6,
    "gender": 3.2,
    "first": 1.0,
    "last": 1.0,
    "presence": 1.8,
}
_NOT_SAID, _NOTHING = -2, -1


@dataclass
class Batch:
    """Everything about one step but the sounds themselves.

    Attributes:
        plans: of the clips, B of them.
        frames: of every clip.
        audio: token ids of the clips as captions find them, int64 [B, w], and lengths [B].
        captions: the same for their captions.
        asked: of the clips with questions, or under instructions, [Q, w]; row i is clip i % B.
        answers: of the answers, [Q, w].
        means: whether caption i describes clip j, bool [B, B].
        meaning: of each answer, [Q]; equal where they say the same.
        aspect: of each question, [Q]; -1 where two clips with the same answer are not alike.
    """

    plans: list[mixing.Plan]
    frames: int
    audio: tuple[torch.Tensor, torch.Tensor]
    captions: tuple[torch.Tensor, torch.Tensor]
    asked: tuple[torch.Tensor, torch.Tensor]
    answers: tuple[torch.Tensor, torch.Tensor]
    means: torch.Tensor
    meaning: torch.Tensor
    aspect: torch.Tensor


class Prompts:
    """Token ids in the layout of the remote code's `_prompt`."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._words = lru_cache(maxsize=100_000)(
            lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids
        )
        self.control = {
            n: self._tokenizer.token_to_id(f"<|{n}|>") for n in ("query", "document", "separator", "audio", "end")
        }

    def ids(self, task: str, instruction: str, audio_tokens: int, content: str) -> list[int]:
        """As the model sees an item."""
        c = self.control
        audio = [c["audio"]] * audio_tokens
        return [c[task], *self._words(instruction), c["separator"], *audio, *self._words(content), c["end"]]


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [n, longest] and lengths [n]."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, torch.tensor([len(row) for row in rows])


class Batches(torch.utils.data.IterableDataset):
    """Endless; each worker has random numbers of its own."""

    def __init__(self, bank: mixing.Bank, tokenizer: Path, size: int, seed: int) -> None:
        self._bank, self._tokenizer, self._size, self._seed = bank, tokenizer, size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Batches of `size` clips."""
        worker: Any = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self._seed}/{worker.id if worker else 0}")
        prompts = Prompts(self._tokenizer)
        while True:
            yield self._batch(rng, prompts)

    def _batch(self, rng: random.Random, prompts: Prompts) -> Batch:
        frames = rng.choices(list(mixing.LENGTHS), list(mixing.LENGTHS.values()))[0]
        tokens = frames // FRAMES_PER_TOKEN
        drawn: list[tuple[scenes.Scene, mixing.Plan]] = []
        while len(drawn) < self._size:
            # A third of the clips have a twin beside them that differs in one thing.
            like = drawn[-1][0] if drawn and len(drawn) % 6 == 0 else None
            for _ in range(10):
                scene = scenes.twin(like, rng, "train") if like else scenes.draw(rng, "train")
                plan = mixing.arrange(scene, self._bank, frames, rng)
                if plan:
                    drawn.append((scene, plan))
                    break
            else:
                drawn.append(self._any(frames, rng))
        found = [scene for scene, _ in drawn]
        said = [caption(scene, rng, wording.TRAIN) for scene in found]
        text_asks = rng.random() < 0.5
        text_task, audio_task = ("query", "document") if text_asks else ("document", "query")
        queries, answers, meanings, aspects = [], [], [], []
        for _ in range(2):
            for scene in found:
                aspect, question, instruction, meaning = ask(scene, rng, wording.TRAIN)
                queries.append(prompts.ids("query", instruction, tokens, question))
                answers.append(
                    prompts.ids("document", _for_documents(rng), 0, wording.spelled(wording.answer(meaning, rng), rng))
                )
                meanings.append(meaning)
                aspects.append(-1 if aspect == "presence" else _ASPECTS.index(aspect))
        numbers = {meaning: i for i, meaning in enumerate(sorted(set(meanings)))}
        for_text, for_audio = (_for_queries, _for_documents) if text_asks else (_for_documents, _for_queries)
        return Batch(
            [plan for _, plan in drawn],
            frames,
            padded([prompts.ids(audio_task, for_audio(rng), tokens, "") for _ in found]),
            padded([prompts.ids(text_task, for_text(rng), 0, text) for text, _ in said]),
            padded(queries),
            padded(answers),
            described(torch.tensor([about for _, about in said]), found),
            torch.tensor([numbers[meaning] for meaning in meanings]),
            torch.tensor(aspects),
        )

    def _any(self, frames: int, rng: random.Random) -> tuple[scenes.Scene, mixing.Plan]:
        while True:
            scene = scenes.draw(rng, "train")
            plan = mixing.arrange(scene, self._bank, frames, rng)
            if plan:
                return scene, plan


def _for_queries(rng: random.Random) -> str:
    return wording.QUERY_INSTRUCTIONS[0] if rng.random() < 0.7 else rng.choice(wording.QUERY_INSTRUCTIONS)


def _for_documents(rng: random.Random) -> str:
    return wording.DOCUMENT_INSTRUCTIONS[0] if rng.random() < 0.7 else rng.choice(wording.DOCUMENT_INSTRUCTIONS)


def caption(scene: scenes.Scene, rng: random.Random, split: int, say: str | None = None) -> tuple[str, list[int]]:
    """A text for a scene, and what it says: [any kind, first kind, its count, second kind, background] as numbers.

    Args:
        scene: what is heard.
        rng: chooses the names and the pattern.
        split: whose patterns.
        say: "all" that is heard; its "count" too, of an event that is the only one in front; or "one" sound of
            several. None: sometimes one sound, sometimes a count, as training has it.
    """
    parts, bg = scene.parts, scene.background
    countable = len(parts) == 1 and parts[0][0] not in scenes.SPEECH
    if say is None:
        say = "one" if rng.random() < 0.12 else "count" if countable and rng.random() < 0.35 else "all"
    if say == "one":
        kind = rng.choice(sorted(scene.kinds))
        patterns = wording.CAPTIONS["any"][split]
        text = rng.choice(patterns).format(a=wording.name(kind, rng))
        if split == wording.TRAIN and rng.random() < 0.3:
            text = wording.name(kind, rng)
        return wording.spelled(text, rng), [_KIND[kind], _NOT_SAID, 0, _NOT_SAID, _NOT_SAID]
    if say == "count" and not countable:
        raise ValueError(f"{scene} has no count")
    names = {key: wording.name(kind, rng) for key, (kind, _) in zip("ab", parts, strict=False)}
    names["bg"] = wording.name(bg, rng) if bg else ""
    form = ("background alone", "over" if bg else "alone", "order over" if bg else "order")[len(parts)]
    pattern = rng.choice(wording.CAPTIONS[form][split])
    counted = parts[0][1] if say == "count" else 0
    if counted:
        said = rng.choice(wording.CAPTIONS["counted"][split]).format(n=wording.times(counted, rng), **names)
        pattern = pattern.replace("{a}", "{counted}") if bg else said
        names["counted"] = said
    kinds = [_KIND[kind] for kind, _ in parts] + [_NOTHING] * (2 - len(parts))
    about = [_NOT_SAID, kinds[0], counted, kinds[1], _KIND[bg] if bg else _NOTHING]
    return wording.spelled(pattern.format(**names), rng), about


def described(said: torch.Tensor, found: list[scenes.Scene]) -> torch.Tensor:
    """Whether what caption i says is true of scene j: bool [captions, scenes]."""
    rows = []
    for scene in found:
        kinds = [_KIND[kind] for kind, _ in scene.parts] + [_NOTHING] * (2 - len(scene.parts))
        count = scene.parts[0][1] if len(scene.parts) == 1 else 0
        rows.append([kinds[0], count, kinds[1], _KIND[scene.background] if scene.background else _NOTHING])
    heard = torch.tensor(rows)
    one, first, count, second, behind = (column[:, None] for column in said.T)
    any_of = (one == heard[None, :, 0]) | (one == heard[None, :, 2]) | (one == heard[None, :, 3])
    exact = (first == heard[None, :, 0]) & (second == heard[None, :, 2]) & (behind == heard[None, :, 3])
    exact &= (count == 0) | (count == heard[None, :, 1])
    return torch.where(one == _NOT_SAID, exact, any_of)


def ask(scene: scenes.Scene, rng: random.Random, split: int, aspect: str | None = None) -> tuple[str, str, str, str]:
    """An aspect that the scene has, a question and an instruction that ask for it, and what the answer means."""
    if aspect is None:
        possible = [a for a in _ASPECTS if a == "presence" or scenes.answer_of(scene, a)]
        aspect = rng.choices(possible, [_WEIGHTS[a] for a in possible])[0]
    if aspect == "presence":
        present = rng.random() < 0.5
        absent = [kind for kind in scenes.KINDS if kind not in scene.kinds]
        kind = rng.choice(sorted(scene.kinds) if present else absent)
        names, meaning = {"a": wording.name(kind, rng)}, "yes" if present else "no"
    else:
        found = scenes.answer_of(scene, aspect)
        if found is None:
            raise ValueError(f"{scene} has no {aspect}")
        meaning = found
        kinds = [kind for kind, _ in scene.parts]
        rng.shuffle(kinds)
        names = {key: wording.name(kind, rng) for key, kind in zip("ab", kinds, strict=False)}
    if aspect in wording.STEERING and rng.random() < 0.4:
        return aspect, "", rng.choice(wording.STEERING[aspect][split]), meaning
    question = rng.choice(wording.ASKED[aspect][split]).format(**names)
    return aspect, question if rng.random() < 0.6 else wording.spelled(question, rng), _for_queries(rng), meaning
