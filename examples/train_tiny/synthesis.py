"""What sounds are made of: tones, noise, resonances and envelopes at 16 kHz, numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RATE = 16_000

Samples = np.ndarray
Rng = np.random.Generator


def instants(seconds: float) -> Samples:
    """The time of every sample, in seconds."""
    return np.arange(round(seconds * RATE)) / RATE


def noise(rng: Rng, seconds: float, low: float = 0.0, high: float = 8000.0, slope: float = 0.0) -> Samples:
    """Noise between two frequencies, RMS 1; its power falls by `slope` in powers of the frequency."""
    count = round(seconds * RATE)
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    shape = 1 / (1 + (low / np.maximum(frequencies, 1)) ** 8) / (1 + (frequencies / high) ** 8)
    shape *= np.maximum(frequencies, 20.0) ** (-slope / 2)
    samples = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)
    return samples / (np.sqrt(np.mean(samples**2)) + 1e-12)


def tone(frequency: Samples | float, seconds: float, phase: float = 0.0) -> Samples:
    """A sine of one frequency, or one that changes with every sample, in Hz."""
    track = np.broadcast_to(frequency, (round(seconds * RATE),))
    return np.sin(2 * np.pi * np.cumsum(track) / RATE + phase)


def glide(points: Sequence[float], seconds: float) -> Samples:
    """A frequency that passes through `points` at equal distances in time."""
    return np.interp(np.linspace(0, 1, round(seconds * RATE)), np.linspace(0, 1, len(points)), points)


def voiced(pitch: Samples, formants: Sequence[tuple[float, float]], tilt: float = 1.0) -> Samples:
    """Harmonics of a pitch under resonances (Hz, width in Hz)."""
    phase, samples = 2 * np.pi * np.cumsum(pitch) / RATE, np.zeros(len(pitch))
    for number in range(1, int(7500 / pitch.max()) + 1):
        place = number * pitch
        gain = sum(1 / (1 + ((place - f) / w) ** 2) for f, w in formants) + 0.02
        samples += gain * number**-tilt * np.sin(number * phase)
    return samples


def attack(count: int, seconds: float) -> Samples:
    """A gain that rises to 1 in `seconds`."""
    return np.minimum(1.0, np.arange(count) / (seconds * RATE + 1))


def fade(samples: Samples, rise: float = 0.005, fall: float = 0.02) -> Samples:
    """`samples` with a soft beginning and end, in seconds."""
    return samples * attack(len(samples), rise) * attack(len(samples), fall)[::-1]


def decay(count: int, tau: float) -> Samples:
    """A gain that falls to 1/e every `tau` seconds."""
    return np.exp(-np.arange(count) / (tau * RATE))


def partials(rng: Rng, ratios: Sequence[float], base: float, tau: float, seconds: float) -> Samples:
    """Struck metal: partials at inharmonic ratios, the higher ones dying sooner."""
    samples = np.zeros(round(seconds * RATE))
    for ratio in ratios:
        frequency = base * ratio * rng.uniform(0.995, 1.005)
        if frequency < 7800:
            sounding = tone(frequency, seconds, rng.uniform(0, 6))
            samples += rng.uniform(0.4, 1) / ratio**0.4 * sounding * decay(len(samples), tau / ratio**0.5)
    return samples


def pulses(rng: Rng, seconds: float, rate: float, jitter: float = 0.0) -> list[int]:
    """Places of events that come `rate` times a second; at random if `jitter` is 1."""
    if jitter >= 1:
        return sorted(rng.integers(0, round(seconds * RATE), max(1, rng.poisson(rate * seconds))).tolist())
    times = np.arange(rng.uniform(0, 1 / rate), seconds, 1 / rate)
    return [max(0, round((t + rng.uniform(-jitter, jitter) / rate) * RATE)) for t in times]


def scatter(count: int, places: Sequence[int], make: Callable[[], Samples]) -> Samples:
    """A new sound at every place, cut at `count` samples."""
    samples = np.zeros(count)
    for place in places:
        one = make()[: max(count - place, 0)]
        samples[place : place + len(one)] += one
    return samples
