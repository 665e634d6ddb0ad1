"""What the evaluation's questions can be answered by without what they should need: length, loudness, pitch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from alm2vec_integrations import AudioClip

from . import sounds

NEIGHBOURS = 5


def sizes(clips: Sequence[AudioClip]) -> np.ndarray:
    """Length and loudness of each clip, both to a spread of 1: float64 [clips, 2]."""
    found = [(len(clip.source), np.log(np.sqrt(np.mean(clip.source**2)) + 1e-6)) for clip in clips]
    return _to_unit_spread(np.array(found, dtype=np.float64))


def pitches(clips: Sequence[AudioClip]) -> np.ndarray:
    """Each clip's median fundamental frequency by WORLD's DIO, logarithmic, to a spread of 1: float64 [clips, 1]."""
    import pyworld  # like the voices themselves, only where speech is evaluated

    found = []
    for clip in clips:
        frequencies, _ = pyworld.dio(clip.source.astype(np.float64), sounds.RATE, f0_floor=60, f0_ceil=400)
        voiced = frequencies[frequencies > 0]
        found.append([np.log(np.median(voiced)) if len(voiced) else 0.0])
    return _to_unit_spread(np.array(found))


def by_neighbours(features: np.ndarray, meanings: Sequence[str], possible: Sequence[Collection[str]]) -> float:
    """Share right if each clip's answer is what most of the nearest others say, of those whose answer is possible."""
    hits = 0
    for i, meaning in enumerate(meanings):
        near = np.argsort(np.linalg.norm(features - features[i], axis=1), kind="stable")
        votes = [meanings[j] for j in near if j != i and meanings[j] in possible[i]][:NEIGHBOURS]
        hits += bool(votes) and max(sorted(set(votes)), key=votes.count) == meaning
    return hits / len(meanings)


def by_distance(features: np.ndarray) -> float:
    """Share of triplets (query, alike, other), [3 * n, d], whose query is nearer to the one that is alike."""
    query, alike, other = features.reshape(3, -1, features.shape[1])
    return float(np.mean(np.linalg.norm(query - alike, axis=1) < np.linalg.norm(query - other, axis=1)))


def nearness(others: Sequence[AudioClip], clips: Sequence[AudioClip]) -> np.ndarray:
    """How near in length and loudness each clip is to each of others, which are of the same scenes: [others, clips].

    It stands for what a caption could tell of them at most, a caption being true of more clips than one.
    """
    found = sizes([*others, *clips])
    rows, columns = found[: len(others)], found[len(others) :]
    return -np.linalg.norm(rows[:, None] - columns[None], axis=2)


def _to_unit_spread(found: np.ndarray) -> np.ndarray:
    return (found - found.mean(0)) / (found.std(0) + 1e-9)
