"""Write a small library of recordings that alm2vec-tiny knows: something in front of something else, six seconds each.

python examples/sound_library.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from train_tiny import sounds

RATE = sounds.RATE
SPEECH = Path(__file__).parent / "speech"  # two synthetic voices; train_tiny/README.md says whose
SECONDS = 6
SCENES = (
    ("dog", "rain"),
    ("dog", "piano"),
    ("knock", "rain"),
    ("cat", "guitar"),
    ("man", "traffic"),
    ("woman", "piano"),
    ("church_bell", "wind"),
)
"""What is in front and what behind, by the names of `train_tiny.sounds`."""


def write_library(folder: Path) -> list[Path]:
    """Write `<front> over <behind>.flac` for every scene, 16 kHz mono; the same samples each time."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for front, behind in SCENES:
        samples = 0.4 * sounds.make(behind, "library", 0)[: SECONDS * RATE]
        for second, one in _in_front(front):
            start = round(second * RATE)
            samples[start : start + len(one)] += one
        paths.append(folder / f"{front.replace('_', ' ')} over {behind}.flac")
        soundfile.write(paths[-1], np.clip(samples, -1, 1), RATE)
    return paths


def _in_front(kind: str) -> list[tuple[float, np.ndarray]]:
    if kind in ("man", "woman"):
        return [(1.0, soundfile.read(SPEECH / f"{kind}.flac", dtype="float32")[0])]
    one = sounds.make(kind, "library", 1)
    return [(1.0, one), (2.6, one)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path in write_library(Path(sys.argv[1])):
        print(path)
