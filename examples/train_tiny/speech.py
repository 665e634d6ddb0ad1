"""Render the speech that alm2vec-tiny is trained and evaluated on. Needs Debian's synthesisers and pyworld.

python -m train_tiny.speech FOLDER                      writes train.ogg, train.json, eval.ogg, eval.json
python -m train_tiny.speech --quickstart speech         writes man.flac and woman.flac

Synthesisers' stock men and women differ mostly in pitch, and a model that hears only them becomes a pitch detector. So
every utterance is taken apart by WORLD into pitch and spectral envelope, and both are drawn anew, independently: what
makes a voice a man's or a woman's here is the two together, and the ranges of pitch overlap.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
MAX_SECONDS = 2.8

Gender = str


@dataclass(frozen=True)
class Voice:
    """One voice of one synthesiser; `gender` is its own, before anything is changed."""

    engine: str
    name: str
    gender: Gender
    split: str


def voices() -> list[Voice]:
    """All voices; those of the evaluation are in no training scene."""
    found = []
    for language, split in (
        ("en-us", "train"),
        ("en-gb-x-gbclan", "train"),
        ("en-gb-scotland", "train"),
        ("en-029", "train"),
    ):
        found += [Voice("espeak", f"{language}+m{n}", "man", split) for n in (1, 2, 3, 5, 6, 8)]
        found += [Voice("espeak", f"{language}+f{n}", "woman", split) for n in (1, 2, 3, 5)]
    for language in ("en-us-nyc", "en-gb-x-rp"):
        found += [Voice("espeak", f"{language}+m{n}", "man", "eval") for n in (4, 7)]
        found += [Voice("espeak", f"{language}+f4", "woman", "eval")]
    found += [Voice("flite", name, gender, "train") for name, gender in (("kal16", "man"), ("rms", "man"))]
    found += [Voice("flite", "slt", "woman", "train"), Voice("flite", "awb", "man", "eval")]
    found += [
        Voice("festival", "ked_diphone", "man", "train"),
        Voice("festival", "hy_fi_mv_diphone", "man", "train"),
        Voice("festival", "suo_fi_lj_diphone", "woman", "train"),
        Voice("festival", "czech_ph", "man", "train"),
        Voice("festival", "czech_dita", "woman", "train"),
        Voice("festival", "cmu_us_slt_arctic_hts", "woman", "train"),
        Voice("festival", "upc_ca_ona_hts", "woman", "train"),
        Voice("festival", "lp_diphone", "woman", "eval"),
        Voice("festival", "pc_diphone", "man", "eval"),
    ]
    return found


_WHO = {
    "train": ["the doctor", "my brother", "our teacher", "the captain", "a neighbour", "the farmer", "her uncle"],
    "eval": ["the driver", "my sister", "the baker", "an engineer"],
}
_DOES = {
    "train": [
        "closed the window", "found a letter", "missed the train", "painted the kitchen", "sold the old car",
        "called about the invoice", "planted an apple tree", "forgot the umbrella", "walked to the harbour",
        "asked for a refund", "moved to the city", "fixed the radio",
    ],
    "eval": ["bought a ticket", "cooked some soup", "lost the keys", "answered the phone", "cleaned the garage"],
}  # fmt: skip
_WHEN = {
    "train": ["yesterday", "this morning", "last week", "before lunch", "after the meeting", "on Monday", ""],
    "eval": ["in the evening", "at noon", "two days ago", "again"],
}
_ALSO = {
    "train": [
        "Could you send me the report?", "I would like to change my order.", "The weather is turning cold.",
        "Please hold the line.", "We will be there in ten minutes.", "That is not what I asked for.",
        "How much does it cost?", "The meeting starts at nine.", "I have been waiting for an hour.",
        "Thank you for your help today.", "The road is closed until Friday.", "Did you hear the news?",
    ],
    "eval": [
        "May I speak to the manager?", "Your parcel has arrived.", "It was raining all night long.",
        "Where can I park the car?", "Let us try it once more.",
    ],
}  # fmt: skip


def sentence(split: str, rng: random.Random) -> str:
    """A short sentence; none of the training's is in the evaluation."""
    if rng.random() < 0.3:
        return rng.choice(_ALSO[split])
    words = f"{rng.choice(_WHO[split])} {rng.choice(_DOES[split])} {rng.choice(_WHEN[split])}".strip()
    return f"{words[0].upper()}{words[1:]}."


def render(voice: Voice, text: str) -> np.ndarray:
    """The voice as it is: float64 [n] at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        if voice.engine == "espeak":
            command = ["espeak-ng", "-v", voice.name, "-s", "165", "-w", str(path), text]
        elif voice.engine == "flite":
            command = ["flite", "-voice", voice.name, "-t", text, "-o", str(path)]
        else:
            words = Path(folder) / "x.txt"
            words.write_text(text)
            command = ["text2wave", "-eval", f"(voice_{voice.name})", "-o", str(path), str(words)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        samples, rate = soundfile.read(path)
    if rate != RATE:
        positions = np.arange(0, len(samples) - 1, rate / RATE)
        if rate > RATE:  # a plain low-pass before every (rate / RATE)th sample is taken
            spectrum = np.fft.rfft(samples)
            spectrum[int(len(spectrum) * RATE / rate * 0.97) :] = 0
            samples = np.fft.irfft(spectrum, len(samples))
        samples = np.interp(positions, np.arange(len(samples)), samples)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return np.asarray(samples[loud[0] : loud[-1] + 1][: round(MAX_SECONDS * RATE)], dtype=np.float64)


def draw_voice(gender: Gender, own: Gender, rng: random.Random) -> tuple[float, float]:
    """A pitch in Hz and a scale of the formants that make a voice of `own` gender one of `gender`."""
    pitch = rng.uniform(85, 195) if gender == "man" else rng.uniform(160, 270)
    if gender != own:
        return pitch, rng.uniform(1.15, 1.25) if gender == "woman" else rng.uniform(0.79, 0.86)
    # A high man's voice has a man's formants, a low woman's a woman's: both ambiguous is neither.
    if gender == "man" and pitch > 160:
        return pitch, rng.uniform(0.93, 1.0)
    return pitch, rng.uniform(1.0, 1.06) if gender == "woman" and pitch < 185 else rng.uniform(0.95, 1.04)


class Analysed:
    """An utterance as WORLD sees it."""

    def __init__(self, samples: np.ndarray) -> None:
        import pyworld

        self._world = pyworld
        rough, times = pyworld.dio(samples, RATE, f0_floor=65.0, f0_ceil=420.0)
        self.pitch = pyworld.stonemask(samples, rough, times, RATE)
        self._envelope = pyworld.cheaptrick(samples, self.pitch, times, RATE)
        self._noise = pyworld.d4c(samples, self.pitch, times, RATE)

    @property
    def median(self) -> float:
        """Of the pitch where there is one, in Hz; 0 if nowhere."""
        voiced = self.pitch[self.pitch > 0]
        return float(np.median(voiced)) if len(voiced) > 20 else 0.0

    def again(self, pitch: float, formants: float, liveliness: float) -> np.ndarray:
        """With another median pitch, formants scaled, and the melody stretched: float32 [n], peak 0.7."""
        bins = np.arange(self._envelope.shape[1])
        source = np.clip(bins / formants, 0, bins[-1])
        warp = lambda matrix: np.ascontiguousarray([np.interp(source, bins, row) for row in matrix])  # noqa: E731
        melody = np.where(self.pitch > 0, np.maximum(self.pitch, 1.0) / self.median, 1.0) ** liveliness
        f0 = np.where(self.pitch > 0, pitch * melody, 0.0)
        samples = self._world.synthesize(f0, warp(self._envelope), warp(self._noise), RATE)
        return (0.7 * samples / max(np.abs(samples).max(), 1e-9)).astype(np.float32)


def utterances(voice: Voice, seed: int, count: int, variants: int) -> list[tuple[dict, np.ndarray]]:
    """`count` sentences of one voice, each in `variants` forms and their labels."""
    rng = random.Random(f"{voice.name}-{seed}")
    done = []
    for _ in range(count):
        text = sentence(voice.split, rng)
        try:
            analysed = Analysed(render(voice, text))
        except (subprocess.SubprocessError, IndexError) as error:
            print(f"left out: {voice.name}: {text!r}: {error!r}")
            continue
        # Some pairs of an espeak language and variant ignore the variant.
        if not (60 < analysed.median < 165 if voice.gender == "man" else 140 < analysed.median < 350):
            print(f"left out: {voice.name} has a pitch of {analysed.median:.0f} Hz")
            return done
        for number in range(variants):
            gender = ("man", "woman")[number % 2]
            pitch, formants = draw_voice(gender, voice.gender, rng)
            samples = analysed.again(pitch, formants, rng.uniform(0.6, 1.3))
            about = {"gender": gender, "text": text, "pitch": round(pitch), "formants": round(formants, 3)}
            done.append(({**asdict(voice), **about, "own": voice.gender}, samples))
    return done


def write(folder: Path, split: str, per_voice: int, variants: int) -> None:
    """Render a split into one compressed file and a list of what is where in it."""
    weight = {"espeak": 1, "flite": 5, "festival": 4}
    chosen = [voice for voice in voices() if voice.split == split]
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(utterances, v, 0, per_voice * weight[v.engine], variants) for v in chosen]
        found = [one for job in jobs for one in job.result()]
    rows, place = [], 0
    with soundfile.SoundFile(folder / f"{split}.ogg", "w", RATE, 1, "VORBIS", format="OGG", compression_level=0.3) as f:
        for about, samples in found:
            rows.append({**about, "start": place, "frames": len(samples)})
            for start in range(0, len(samples), 4096):  # libsndfile's Vorbis crashes on long writes
                f.write(samples[start : start + 4096])
            place += len(samples)
    (folder / f"{split}.json").write_text(json.dumps(rows))
    print(f"{split}: {len(rows)} utterances, {place / RATE:.0f} s, {len({row['text'] for row in rows})} sentences")


def read(folder: Path, split: str) -> list[tuple[dict, np.ndarray]]:
    """What `write` wrote: labels and float32 [n] samples."""
    data = io.BytesIO((folder / f"{split}.ogg").read_bytes())
    samples = soundfile.read(data, dtype="float32")[0]
    rows = json.loads((folder / f"{split}.json").read_text())
    return [(row, samples[row["start"] : row["start"] + row["frames"]]) for row in rows]


QUICKSTART = {"man": ("May I speak to the manager?", 112.0, 1.0), "woman": ("Your parcel has arrived.", 215.0, 1.2)}
"""Sentence, pitch in Hz and scale of the formants of the two recordings that are part of the project."""


def write_quickstart(folder: Path) -> None:
    """Write the two recordings: one voice of flite, whose licence lets anyone use and pass on what it says."""
    for name, (text, pitch, formants) in QUICKSTART.items():
        analysed = Analysed(render(Voice("flite", "awb", "man", "eval"), text))
        soundfile.write(folder / f"{name}.flac", analysed.again(pitch, formants, 1.0), RATE, subtype="PCM_16")


def main() -> None:
    """Render what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-voice", type=int, default=9, help="sentences of each training voice")
    parser.add_argument("--quickstart", action="store_true", help="only man.flac and woman.flac, for the quickstart")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.quickstart:
        write_quickstart(arguments.folder)
        return
    write(arguments.folder, "eval", 10, 4)
    write(arguments.folder, "train", arguments.per_voice, 4)


if __name__ == "__main__":
    main()
