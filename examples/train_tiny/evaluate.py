"""Measure alm2vec-tiny, and write its card.

python -m train_tiny.evaluate FOLDER --speech SPEECH             prints the tables
python -m train_tiny.evaluate FOLDER --speech SPEECH --card      and writes FOLDER/README.md, and results.json here
python -m train_tiny.evaluate FOLDER --share 0.1                 a tenth of it, without speech

--recordings DIR: audiocaps_*.flac, of which no caption names music; those that SPEAKERS names among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText

from . import card, scenes, wording
from .disjoint import assert_disjoint
from .scoring import ALIKE, ASKED, Evaluation, Score

SPEAKERS = {"audiocaps_jid4t-FzUn0": "man", "audiocaps_CYUlLTKoa1Y": "woman"}
"""Who speaks in the recordings of AudioCaps whose captions name one person who speaks, and nobody else."""


def run(encoder: ALM2VecEncoder, speech_folder: Path | None, share: float = 1.0) -> dict[str, list[Score]]:
    """Every table, of scenes that have nothing in common with training's.

    Raises:
        AssertionError: they have, after all.
    """
    evaluation = Evaluation(encoder, speech_folder, share)
    asked = [aspect for aspect in ASKED if evaluation.with_speech or aspect != "gender"]
    alike = [aspect for aspect in ALIKE if evaluation.with_speech or aspect != "gender"]

    def text_and_audio(split: int) -> list[Score]:
        return [
            *evaluation.mixtures(split),
            *evaluation.singles(split),
            *evaluation.counted(split),
            evaluation.one_of_several(split),
        ]

    seen, held = wording.TRAIN, wording.EVAL
    tables = {
        "Text and audio": text_and_audio(seen),
        "Audio and audio, by one aspect": [score for aspect in alike for score in evaluation.triplets(aspect, seen)],
        "Audio and question to answer": [evaluation.answers(aspect, seen) for aspect in asked],
        "Wordings that training never had": [
            *text_and_audio(held),
            *[score for aspect in alike for score in evaluation.triplets(aspect, held)],
            *[evaluation.answers(aspect, held) for aspect in asked],
        ],
    }
    assert_disjoint(evaluation.used, evaluation.bank, speech_folder)
    return tables


def recordings(encoder: ALM2VecEncoder, folder: Path) -> str:
    """A smoke test on recordings of people and places: who speaks, and how often music is heard where there is none."""
    files = sorted(folder.glob("audiocaps_*.flac"))  # their captions, which name no music, are known
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
        f"{len(files)} recordings whose captions name no music it hears music in {alarms}."
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
    if arguments.card and (arguments.share != 1 or not arguments.speech or not arguments.recordings):
        parser.error("--card is for the whole evaluation: --speech and --recordings, without --share")
    began = time.time()
    with ALM2VecEncoder(arguments.folder.absolute(), trust_remote_code=True, device="cpu") as encoder:
        results = run(encoder, arguments.speech, arguments.share)
        smoke = recordings(encoder, arguments.recordings) if arguments.recordings else ""
    for title, scores in results.items():
        print(f"\n## {title}\n\n{card.table(scores)}")
    print(f"\n{smoke}\n{time.time() - began:.0f} s")
    if arguments.card:
        card.write(arguments.folder, results, smoke)


if __name__ == "__main__":
    main()
