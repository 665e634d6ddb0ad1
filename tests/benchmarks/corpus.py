"""A corpus for the throughput benchmark: compressed recordings of mixed lengths, rates and formats, from a seed."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SHORTEST, LONGEST, MEDIAN = 1.0, 30.0, 9.0
FORMATS = {
    "flac": ("FLAC", "PCM_16", (16_000, 22_050, 44_100, 48_000)),
    "mp3": ("MP3", "MPEG_LAYER_III", (16_000, 22_050, 44_100, 48_000)),
    "opus": ("OGG", "OPUS", (16_000, 24_000, 48_000)),
    "wav": ("WAV", "PCM_16", (16_000, 22_050, 44_100, 48_000)),
}


@dataclass(frozen=True)
class Recording:
    """One file to be written."""

    path: Path
    seconds: float
    suffix: str
    rate: int
    channels: int
    seed: int


def plan(folder: Path, count: int, seed: int) -> list[Recording]:
    """What is in the corpus; lengths are log-normal, as those of clips in sound libraries are."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        seconds = float(np.clip(MEDIAN * np.exp(0.7 * rng.standard_normal()), SHORTEST, LONGEST))
        suffix = str(rng.choice(list(FORMATS)))
        rate = int(rng.choice(FORMATS[suffix][2]))
        path = folder / f"{number:05d}.{suffix}"
        found.append(Recording(path, seconds, suffix, rate, int(rng.integers(1, 3)), int(rng.integers(2**31))))
    return found


def write(recording: Recording) -> None:
    """Harmonics that glide under an envelope of syllables, and noise: about as compressible as speech in a room."""
    rng, rate = np.random.default_rng(recording.seed), recording.rate
    time = np.arange(round(recording.seconds * rate), dtype=np.float32) / rate
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 250) * (1 + 0.2 * np.sin(time * rng.uniform(1, 4)))) / rate
    voice = sum(np.sin(h * phase) / h for h in range(1, 9) if h * 300 < rate / 2)
    envelope = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time), 0, 1)
    samples = (0.15 * voice * envelope + 0.01 * rng.standard_normal(len(time))).astype(np.float32)
    if recording.channels == 2:
        samples = np.stack([samples, np.roll(samples, 5)], axis=1)
    container, subtype, _ = FORMATS[recording.suffix]
    with soundfile.SoundFile(recording.path, "w", rate, recording.channels, subtype, format=container) as file:
        for start in range(0, len(samples), 4096):  # libsndfile's encoders crash on long writes
            file.write(samples[start : start + 4096])


def make(folder: Path, count: int, seed: int = 0) -> tuple[list[Recording], str]:
    """Write it.

    Returns:
        The recordings, and a SHA-256 of all their bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recordings = plan(folder, count, seed)
    with ProcessPoolExecutor() as pool:
        list(pool.map(write, recordings, chunksize=8))
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update(recording.path.read_bytes())
    return recordings, digest.hexdigest()
