"""Procedural sounds: countable events, textures that go on, and music. All from a seed, float32 at 16 kHz, numpy only.

They are caricatures. A model that tells them apart knows these caricatures, not the world.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from .synthesis import (
    RATE,
    Rng,
    Samples,
    decay,
    fade,
    glide,
    instants,
    noise,
    partials,
    pulses,
    scatter,
    tone,
    voiced,
)  # fmt: skip

TEXTURE_SECONDS = 10.4

# Countable events.


def dog(r: Rng) -> Samples:
    s, f = r.uniform(0.13, 0.24), r.uniform(300, 650)
    x = voiced(glide([f * 0.8, f, f * 0.6], s), [(r.uniform(700, 1100), 250), (1900, 500)], 0.8)
    return fade(x + 0.5 * noise(r, s, 400, 2500) * x.std(), 0.01, s * 0.5)


def cat(r: Rng) -> Samples:
    s, f = r.uniform(0.5, 0.85), r.uniform(420, 620)
    x = voiced(glide([f, f * 1.5, f * 1.35, f * 0.9], s), [(r.uniform(1200, 1600), 300), (3200, 500)], 1.0)
    return fade(x, 0.08, 0.2)


def bird(r: Rng) -> Samples:
    s, f = r.uniform(0.12, 0.25), r.uniform(3000, 5200)
    x = tone(glide([f, f * r.uniform(1.1, 1.4), f * r.uniform(0.7, 0.95)], s), s)
    return fade(x, 0.02, 0.05)


def owl(r: Rng) -> Samples:
    s, f = r.uniform(0.45, 0.8), r.uniform(300, 480)
    pitch = glide([f * 0.93, f, f * 0.95], s) * (1 + 0.01 * np.sin(2 * np.pi * 6 * instants(s)))
    return fade(tone(pitch, s) + 0.1 * tone(2 * pitch, s), 0.1, 0.15)


def frog(r: Rng) -> Samples:
    s, rate = r.uniform(0.3, 0.5), r.uniform(35, 60)
    f, count = r.uniform(500, 1100), round(s * RATE)
    click = lambda: tone(f, 0.03) * decay(480, 0.006)  # noqa: E731
    return fade(scatter(count, pulses(r, s, rate), click), 0.05, 0.08)


def duck(r: Rng) -> Samples:
    s, f = r.uniform(0.16, 0.28), r.uniform(230, 320)
    x = voiced(glide([f, f * 1.05, f * 0.8], s), [(r.uniform(1100, 1400), 180), (2600, 300)], 0.3)
    return fade(x, 0.01, 0.08)


def cow(r: Rng) -> Samples:
    s, f = r.uniform(0.75, 1.1), r.uniform(95, 140)
    return fade(voiced(glide([f * 0.85, f, f * 1.02, f * 0.8], s), [(300, 120), (700, 150)], 0.9), 0.12, 0.25)


def sheep(r: Rng) -> Samples:
    s, f = r.uniform(0.5, 0.8), r.uniform(280, 420)
    shake = 1 + 0.5 * np.sin(2 * np.pi * r.uniform(8, 12) * instants(s))
    return fade(voiced(glide([f, f * 1.05, f * 0.92], s), [(900, 200), (1700, 300)], 0.5) * shake, 0.05, 0.12)


def knock(r: Rng) -> Samples:
    s, f = 0.12, r.uniform(160, 320)
    body = tone(f, s) + 0.6 * tone(f * r.uniform(2.2, 2.9), s)
    return body * decay(len(body), 0.018) + 0.5 * noise(r, s, 100, 2500) * decay(len(body), 0.004)


def church_bell(r: Rng) -> Samples:
    return fade(partials(r, (0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01), r.uniform(350, 620), 0.9, 1.2), 0.003, 0.3)


def doorbell(r: Rng) -> Samples:
    f, s = r.uniform(560, 760), r.uniform(0.35, 0.45)
    ring = lambda g: (tone(g, s) + 0.3 * tone(3 * g, s)) * decay(round(s * RATE), 0.22)  # noqa: E731
    return fade(np.concatenate([ring(f), ring(f * 0.8)]), 0.002, 0.05)


def phone(r: Rng) -> Samples:
    s, f = r.uniform(0.6, 0.9), r.uniform(1100, 1500)
    warble = np.where(np.sin(2 * np.pi * r.uniform(11, 16) * instants(s)) > 0, f, f * 1.25)
    return fade(tone(warble, s) + 0.3 * tone(2 * warble, s), 0.01, 0.03)


def beep(r: Rng) -> Samples:
    s, f = r.uniform(0.15, 0.3), r.uniform(1800, 2600)
    return fade(np.sign(tone(f, s)) * 0.5 + tone(f, s), 0.003, 0.005)


def car_horn(r: Rng) -> Samples:
    s, f = r.uniform(0.35, 0.7), r.uniform(330, 460)
    x = sum(voiced(np.full(round(s * RATE), g), [(1400, 900)], 0.4) for g in (f, f * 1.26))
    return fade(np.asarray(x), 0.02, 0.05)


def gunshot(r: Rng) -> Samples:
    s = r.uniform(0.4, 0.6)
    count = round(s * RATE)
    boom = noise(r, s, 40, 300) * decay(count, 0.1)
    return fade(noise(r, s, 100, 7500) * decay(count, r.uniform(0.03, 0.05)) + boom, 0.0005, 0.05)


def glass(r: Rng) -> Samples:
    s = r.uniform(0.5, 0.8)
    count = round(s * RATE)
    places = [round(p) for p in r.exponential(0.12 * RATE, 40) if p < count]
    ping = lambda: tone(r.uniform(2500, 7500), 0.1) * decay(1600, r.uniform(0.01, 0.03)) * r.uniform(0.3, 1)  # noqa: E731
    return scatter(count, places, ping) + 0.7 * noise(r, s, 2500, 8000) * decay(count, 0.03)


def door(r: Rng) -> Samples:
    s = 0.4
    count = round(s * RATE)
    thump = tone(glide([r.uniform(90, 130), 55], s), s) * decay(count, 0.07)
    return fade(1.2 * thump + 0.7 * noise(r, s, 60, 700) * decay(count, 0.05), 0.001, 0.05)


def clap(r: Rng) -> Samples:
    s, f = 0.12, r.uniform(900, 1500)
    count = round(s * RATE)
    burst = lambda: noise(r, s, f * 0.6, f * 2) * decay(count, 0.012)  # noqa: E731
    return scatter(count, [0, round(0.008 * RATE), round(0.017 * RATE)], burst)


def whistle(r: Rng) -> Samples:
    s, f = r.uniform(0.4, 0.75), r.uniform(1300, 2000)
    pitch = glide([f, f * 1.05, f * r.uniform(1.35, 1.7)], s)
    return fade(tone(pitch, s) + 0.05 * noise(r, s, 1000, 4000), 0.04, 0.06)


def drip(r: Rng) -> Samples:
    s, f = r.uniform(0.07, 0.11), r.uniform(500, 900)
    return fade(tone(glide([f, f * 1.3, f * 2.4], s), s) * decay(round(s * RATE), 0.03), 0.003, 0.01)


def coin(r: Rng) -> Samples:
    return partials(r, (1, 1.53, 2.1), r.uniform(3000, 3700), 0.18, 0.4)


def laser(r: Rng) -> Samples:
    s = r.uniform(0.2, 0.35)
    return fade(np.sign(tone(glide([r.uniform(2600, 3600), 900, 250], s), s)), 0.002, 0.04)


def spring(r: Rng) -> Samples:
    s, f = r.uniform(0.5, 0.8), r.uniform(170, 300)
    wobble = 1 + 0.45 * np.sin(2 * np.pi * r.uniform(10, 16) * instants(s))
    return fade(voiced(f * wobble, [(600, 500)], 0.9) * decay(round(s * RATE), 0.25), 0.003, 0.05)


def hammer(r: Rng) -> Samples:
    x = partials(r, (1, 1.47, 2.09, 2.56, 3.39), r.uniform(900, 1400), 0.12, 0.35)
    return x + 1.5 * noise(r, 0.35, 800, 7000) * decay(len(x), 0.004)


def bicycle_bell(r: Rng) -> Samples:
    s = r.uniform(0.45, 0.6)
    one = partials(r, (1, 1.02, 2.4), r.uniform(2100, 2700), 0.25, s)
    gap = round(r.uniform(0.07, 0.09) * RATE)
    return fade(scatter(len(one), [0, gap, 2 * gap, 3 * gap], lambda: one), 0.001, 0.1)


def cough(r: Rng) -> Samples:
    s = r.uniform(0.28, 0.4)
    x = noise(r, s, 300, 1800, 0.5) * decay(round(s * RATE), 0.09)
    return fade(x + 0.4 * voiced(glide([180, 140], s), [(600, 200)]) * decay(len(x), 0.06), 0.008, 0.08)


def camera(r: Rng) -> Samples:
    click = lambda: noise(r, 0.05, 2500, 8000) * decay(800, r.uniform(0.004, 0.008))  # noqa: E731
    return scatter(3200, [0, round(r.uniform(0.07, 0.11) * RATE)], click)


def siren(r: Rng) -> Samples:
    s, f = r.uniform(0.8, 1.1), r.uniform(480, 640)
    return fade(voiced(glide([f, f * 2.1, f], s), [(1200, 800)], 1.0), 0.05, 0.05)


def zipper(r: Rng) -> Samples:
    s = r.uniform(0.35, 0.6)
    gate = (np.sin(2 * np.pi * np.cumsum(glide([40, r.uniform(110, 150)], s)) / RATE) > 0.3).astype(float)
    return fade(noise(r, s, 2500, 6500) * gate, 0.02, 0.02)


# Textures: ten seconds without beginning or end.

T = TEXTURE_SECONDS
N = round(T * RATE)


def _slow(r: Rng, rate: float, depth: float) -> Samples:
    """A gain that wanders about `rate` times a second."""
    knots = max(3, round(T * rate * 2))
    return np.exp(np.interp(np.linspace(0, knots - 1, N), np.arange(knots), r.normal(0, depth, knots)))


def rain(r: Rng) -> Samples:
    drop = lambda: tone(r.uniform(1500, 6000), 0.01) * decay(160, 0.002) * r.uniform(0.5, 3)  # noqa: E731
    return noise(r, T, r.uniform(700, 1200), 7800, 0.3) + 0.7 * scatter(N, pulses(r, T, r.uniform(60, 150), 1), drop)


def wind(r: Rng) -> Samples:
    base = noise(r, T, 60, r.uniform(350, 600), 0.5) * _slow(r, 0.7, 0.6)
    howl = tone(glide(r.uniform(350, 700, 10).tolist(), T), T) * _slow(r, 0.7, 0.8)
    return base + 0.12 * howl


def waves(r: Rng) -> Samples:
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * (instants(T) * r.uniform(0.25, 0.4) + r.uniform()))
    return noise(r, T, 150, 5000, 0.8) * (0.1 + swell**2) + 0.2 * noise(r, T, 50, 300)


def stream(r: Rng) -> Samples:
    def bubble() -> Samples:
        s, f = r.uniform(0.02, 0.06), r.uniform(400, 1600)
        return fade(tone(glide([f, f * r.uniform(1.1, 1.6)], s), s), 0.004, 0.01) * r.uniform(0.2, 1)

    return scatter(N, pulses(r, T, r.uniform(50, 90), 1), bubble) + 0.12 * noise(r, T, 400, 3000)


def fire(r: Rng) -> Samples:
    def crackle() -> Samples:
        return noise(r, 0.02, 1000, 7500) * decay(320, r.uniform(0.0015, 0.005)) * r.exponential(1.5)

    return scatter(N, pulses(r, T, r.uniform(15, 30), 1), crackle) + 0.3 * noise(r, T, 40, 400, 0.5)


def traffic(r: Rng) -> Samples:
    passing = np.zeros(N)
    for middle in r.uniform(0, T, 4):
        passing += np.exp(-(((instants(T) - middle) / r.uniform(0.5, 1.0)) ** 2)) * r.uniform(0.5, 1.5)
    return noise(r, T, 60, 1200, 1.2) * (0.25 + passing) + 0.3 * noise(r, T, 40, 180)


def engine(r: Rng) -> Samples:
    rate = r.uniform(24, 45) * _slow(r, 0.4, 0.04)
    phase = 2 * np.pi * np.cumsum(rate) / RATE
    return sum(np.sin(k * phase + r.uniform(0, 6)) * k**-0.6 for k in range(1, 24)) + 0.4 * noise(r, T, 50, 1500, 0.8)


def crickets(r: Rng) -> Samples:
    f, rate = r.uniform(4100, 5200), r.uniform(2.0, 3.5)
    inside = (np.sin(2 * np.pi * rate * instants(T)) > -0.2) * np.maximum(0, np.sin(2 * np.pi * 32 * instants(T)))
    return tone(f, T) * inside + 0.05 * noise(r, T, 200, 6000)


def crowd(r: Rng) -> Samples:
    samples = np.zeros(N)
    for _ in range(12):
        f = r.choice([r.uniform(95, 160), r.uniform(170, 250)])
        pitch = glide((f * np.exp(r.normal(0, 0.12, 24))).tolist(), T)
        bands = [(r.uniform(350, 800), 120), (r.uniform(900, 2200), 200), (2700, 300)]
        syllables = np.maximum(0, np.interp(instants(T) * 9, np.arange(96), r.normal(0.1, 1, 96)))
        samples += voiced(pitch, bands, 0.8) * syllables
    return samples + 0.2 * samples.std() * noise(r, T, 200, 4000, 0.5)


def train(r: Rng) -> Samples:
    clack = lambda: noise(r, 0.08, 150, 2000) * decay(1280, 0.015)  # noqa: E731
    beats = pulses(r, T, r.uniform(1.3, 2.0), 0.02)
    pairs = [p + d for p in beats for d in (0, round(0.14 * RATE))]
    return 1.6 * scatter(N, pairs, clack) + 0.35 * noise(r, T, 40, 500, 0.8)


def helicopter(r: Rng) -> Samples:
    chop = np.maximum(0, np.sin(2 * np.pi * r.uniform(11, 17) * instants(T))) ** 3
    return noise(r, T, 50, 900, 0.8) * (0.15 + 1.5 * chop)


def vacuum(r: Rng) -> Samples:
    f = r.uniform(210, 330)
    whine = sum(tone(f * k, T, r.uniform(0, 6)) * k**-0.7 for k in range(1, 9))
    return 0.7 * whine + noise(r, T, 300, 6000, 0.4)


def static(r: Rng) -> Samples:
    pop = lambda: noise(r, 0.004, 500, 8000) * r.uniform(2, 5)  # noqa: E731
    return noise(r, T, 0, 8000) + scatter(N, pulses(r, T, 8, 1), pop)


# Music: ten seconds in some key and tempo.

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def _melody(r: Rng, low: float, beat: float) -> list[tuple[int, float]]:
    """Notes as (place, Hz), a beat or half of one each."""
    scale, root = _SCALES[r.integers(3)], low * 2 ** (r.integers(0, 12) / 12)
    notes, time, step = [], r.uniform(0, 0.2), int(r.integers(0, 7))
    while time < T - 0.2:
        step = int(np.clip(step + r.integers(-2, 3), 0, 10))
        octave, degree = divmod(step, len(scale))
        notes.append((round(time * RATE), root * 2 ** (octave + scale[degree] / 12)))
        time += beat * r.choice([0.5, 1.0])
    return notes


def _play(notes: list[tuple[int, float]], sound: Callable[[float], Samples]) -> Samples:
    samples = np.zeros(N)
    for place, frequency in notes:
        one = sound(frequency)[: N - place]
        samples[place : place + len(one)] += one
    return samples


def _struck(f: float, seconds: float, tau: float, tilt: float, stretch: float = 0.0) -> Samples:
    samples = np.zeros(round(seconds * RATE))
    for k in range(1, 12):
        g = f * k * (1 + stretch * k * k)
        if g < 7500:
            samples += k**-tilt * tone(g, seconds) * decay(len(samples), tau / k**0.7)
    return fade(samples, 0.003, 0.03)


def piano(r: Rng) -> Samples:
    beat = r.uniform(0.3, 0.55)
    high = _play(_melody(r, 260, beat), lambda f: _struck(f, 1.2, 0.4, 1.3, 0.0004))
    return high + 0.7 * _play(_melody(r, 110, 2 * beat), lambda f: _struck(f, 1.6, 0.6, 1.2, 0.0004))


def guitar(r: Rng) -> Samples:
    return _play(_melody(r, 165, r.uniform(0.22, 0.38)), lambda f: _struck(f, 0.9, 0.28, 0.6))


def flute(r: Rng) -> Samples:
    beat, rate = r.uniform(0.35, 0.6), r.uniform(4.5, 6)

    def blow(f: float) -> Samples:
        s = beat * 0.95
        pitch = f * (1 + 0.006 * np.sin(2 * np.pi * rate * instants(s)))
        x = tone(pitch, s) + 0.25 * tone(2 * pitch, s) + 0.08 * noise(r, s, f, 3 * f)
        return fade(x, 0.05, 0.08)

    return _play(_melody(r, 520, beat), blow)


def drums(r: Rng) -> Samples:
    step = r.uniform(0.11, 0.16)
    kick = lambda: tone(glide([130, 50], 0.2), 0.2) * decay(3200, 0.06) * 1.6  # noqa: E731
    snare = lambda: noise(r, 0.15, 300, 7000) * decay(2400, 0.04) * 0.7  # noqa: E731
    hat = lambda: noise(r, 0.05, 5500, 8000) * decay(800, 0.012) * 0.4  # noqa: E731
    steps = range(int(T / step))
    at = lambda wanted: [round(i * step * RATE) for i in steps if i % 8 in wanted]  # noqa: E731
    kicks = {0, int(r.choice([3, 5, 4, 6]))}
    return scatter(N, at(kicks), kick) + scatter(N, at({2, 6} - kicks | {4}), snare) + scatter(N, at({0, 2, 4, 6}), hat)


def organ(r: Rng) -> Samples:
    samples, bar = np.zeros(N), r.uniform(1.0, 1.8)
    root = r.uniform(130, 200)
    for place in range(0, N, round(bar * RATE)):
        chord = root * 2 ** (r.choice([0, 5, 7, 9]) / 12)
        for ratio in (1, 5 / 4, 3 / 2, 2):
            x = sum(tone(chord * ratio * k, bar) * a for k, a in ((1, 1), (2, 0.6), (3, 0.3), (4, 0.4), (6, 0.2)))
            x = fade(np.asarray(x), 0.03, 0.05)[: N - place]
            samples[place : place + len(x)] += x
    return samples


def synthesiser(r: Rng) -> Samples:
    step = r.uniform(0.11, 0.15)
    root = r.uniform(80, 140)
    pattern = r.choice([0, 0, 3, 7, 10, 12, 15], 8)
    sweep = r.uniform(0.2, 0.5)

    def pluck(f: float) -> Samples:
        return fade(
            voiced(np.full(round(step * RATE), f), [(r.uniform(600, 2500) * (1 + sweep), 500)], 0.5), 0.004, 0.02
        )

    return _play([(round(i * step * RATE), root * 2 ** (pattern[i % 8] / 12)) for i in range(int(T / step))], pluck)


def strings(r: Rng) -> Samples:
    samples, bar = np.zeros(N), r.uniform(1.6, 2.6)
    root = r.uniform(180, 280)
    for place in range(0, N, round(bar * RATE)):
        chord = root * 2 ** (r.choice([0, -5, 2, 5, 7]) / 12)
        for ratio in (1, 6 / 5, 3 / 2):
            wander = 1 + 0.008 * np.sin(2 * np.pi * r.uniform(4.5, 6) * instants(bar) + r.uniform(0, 6))
            x = fade(voiced(chord * ratio * wander, [(1000, 900), (2800, 900)], 0.9), 0.35, 0.3)[: N - place]
            samples[place : place + len(x)] += x
    return samples


EVENTS: dict[str, Callable[[Rng], Samples]] = {
    f.__name__: f
    for f in (
        dog, cat, bird, owl, frog, duck, cow, sheep, knock, church_bell, doorbell, phone, beep, car_horn, gunshot,
        glass, door, clap, whistle, drip, coin, laser, spring, hammer, bicycle_bell, cough, camera, siren, zipper,
    )
}  # fmt: skip
TEXTURES: dict[str, Callable[[Rng], Samples]] = {
    f.__name__: f
    for f in (rain, wind, waves, stream, fire, traffic, engine, crickets, crowd, train, helicopter, vacuum, static)
}
MUSIC: dict[str, Callable[[Rng], Samples]] = {
    f.__name__: f for f in (piano, guitar, flute, drums, organ, synthesiser, strings)
}


def make(kind: str, split: str, number: int) -> Samples:
    """One sound of a kind, RMS 0.1 where it sounds: float32 [n]. Another split or number is another seed."""
    seed = np.random.SeedSequence([zlib.crc32(f"{kind}/{split}".encode()), number])
    maker = {**EVENTS, **TEXTURES, **MUSIC}[kind]
    samples = maker(np.random.default_rng(seed))
    return (0.1 * samples / (np.sqrt(np.mean(samples**2)) + 1e-9)).astype(np.float32)
