"""Small audio files with known contents."""

from pathlib import Path

import numpy as np
import soundfile


def tone(seconds: float, hertz: float = 440.0, rate: int = 16_000) -> np.ndarray:
    """float32 [n]: a sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """float32 [n]: white noise at a tenth of full scale."""
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path
