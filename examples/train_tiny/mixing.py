"""Scenes to waveforms: sounds from a bank on the device, placed, mixed, and worn by rooms, lines and recorders."""

from __future__ import annotations

import random
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import scenes, sounds, speech

RATE = sounds.RATE
FOREGROUND_FRAMES = round(speech.MAX_SECONDS * RATE)
LENGTHS = {
    round(seconds * RATE): share
    for seconds, share in ((2.4, 1), (4.0, 2), (4.8, 2), (5.6, 2), (6.4, 2), (8.0, 1), (10.0, 1))
}
"""Of training clips, in frames, and how often each is drawn."""


@dataclass
class Bank:
    """Sounds of one split.

    Attributes:
        foreground: float16 [n, FOREGROUND_FRAMES], padded with zeros.
        background: float16 [n, 10.4 s].
        rows: of each kind in its matrix.
        frames: length of each row of `foreground`.
        voices: of the rows that are speech, who speaks.
        texts: and what.
    """

    foreground: torch.Tensor
    background: torch.Tensor
    rows: dict[str, list[int]]
    frames: list[int]
    voices: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def to(self, device: str) -> Bank:
        """The same on a device."""
        return Bank(
            self.foreground.to(device), self.background.to(device), self.rows, self.frames, self.voices, self.texts
        )

    def without_sounds(self) -> Bank:
        """What plans are made from."""
        return Bank(torch.empty(0), torch.empty(0), self.rows, self.frames)


def bank(split: str, speech_folder: Path | None, events: int, textures: int) -> Bank:
    """Make `events` sounds of every countable kind and `textures` of every other, and read the rendered speech."""
    rows: dict[str, list[int]] = defaultdict(list)
    foreground, background, frames = [], [], []
    with ProcessPoolExecutor() as pool:
        jobs = [(kind, number) for kind in scenes.EVENTS for number in range(events)]
        made = pool.map(partial(_make, split), jobs, chunksize=16)
        for (kind, _), samples in zip(jobs, made, strict=True):
            rows[kind].append(len(frames))
            frames.append(min(len(samples), FOREGROUND_FRAMES))
            foreground.append(samples)
        jobs = [(kind, number) for kind in scenes.BACKGROUND for number in range(textures)]
        for (kind, _), samples in zip(jobs, pool.map(partial(_make, split), jobs), strict=True):
            rows[kind].append(len(background))
            background.append(samples)
    voices, texts = {}, {}
    for about, samples in speech.read(speech_folder, split) if speech_folder else ():
        row = len(frames)
        rows[about["gender"]].append(row)
        voices[row], texts[row] = about["name"], about["text"]
        frames.append(min(len(samples), FOREGROUND_FRAMES))
        foreground.append(0.1 * samples / (np.sqrt(np.mean(samples**2)) + 1e-9))
    matrix = np.zeros((len(foreground), FOREGROUND_FRAMES), np.float16)
    for row, samples in enumerate(foreground):
        matrix[row, : frames[row]] = samples[:FOREGROUND_FRAMES]
    return Bank(
        torch.from_numpy(matrix),
        torch.from_numpy(np.stack(background).astype(np.float16)),
        dict(rows),
        frames,
        voices,
        texts,
    )


def _make(split: str, job: tuple[str, int]) -> np.ndarray:
    return sounds.make(job[0], split, job[1])


@dataclass
class Plan:
    """Where which sounds go in one clip.

    Attributes:
        placed: (row, first frame, gain) of foreground sounds.
        behind: (row, first frame in the row, gain) of the background, or None.
    """

    placed: list[tuple[int, int, float]]
    behind: tuple[int, int, float] | None


def arrange(scene: scenes.Scene, bank: Bank, frames: int, rng: random.Random) -> Plan | None:
    """Times and levels for a scene in a clip of `frames`; None if it does not fit."""
    order: list[tuple[int, float, float]] = []  # row, gain, share of the gap before it
    gain = 10 ** (rng.uniform(-6, 3) / 20)
    for number, (kind, count) in enumerate(scene.parts):
        row = rng.choice(bank.rows[kind])
        for repeat in range(count):
            gap = 0.0 if number == repeat == 0 else rng.uniform(0.25, 0.7) if repeat == 0 else rng.uniform(0.15, 0.45)
            order.append((row, gain * 10 ** (rng.uniform(-2, 2) / 20), gap))
        gain *= 10 ** (rng.uniform(-4, 4) / 20)
    sounding = sum(bank.frames[row] for row, _, _ in order)
    gaps = sum(gap for _, _, gap in order) * RATE
    room = frames - 0.1 * RATE - sounding
    if room < 0.55 * gaps:
        return None
    squeeze = min(1.0, room / gaps) if gaps else 1.0
    place = rng.uniform(0.02 * RATE, max(frames - sounding - gaps * squeeze - 0.02 * RATE, 0.03 * RATE))
    placed = []
    for row, level, gap in order:
        place += gap * squeeze * RATE
        placed.append((row, int(place), level))
        place += bank.frames[row]
    behind = None
    if scene.background:
        row = rng.choice(bank.rows[scene.background])
        level = gain * 10 ** (rng.uniform(-18, 0) / 20) if scene.parts else 1.0
        behind = (row, rng.randrange(round(sounds.TEXTURE_SECONDS * RATE) - frames), level)
    return Plan(placed, behind)


def mix(plans: list[Plan], bank: Bank, frames: int) -> torch.Tensor:
    """The clips of all plans: float32 [len(plans), frames] on the bank's device."""
    device = bank.foreground.device
    clips = torch.zeros(len(plans), frames + 1, device=device)  # the last column takes what is past the end
    put = [(clip, *one) for clip, plan in enumerate(plans) for one in plan.placed]
    if put:
        clip, row, start = (torch.tensor([one[i] for one in put], device=device) for i in range(3))
        gain = torch.tensor([one[3] for one in put], device=device)
        time = start[:, None] + torch.arange(FOREGROUND_FRAMES, device=device)[None]
        place = clip[:, None] * (frames + 1) + time.clamp(max=frames)
        clips.view(-1).index_add_(0, place.view(-1), (bank.foreground[row].float() * gain[:, None]).view(-1))
    behind = [(clip, *plan.behind) for clip, plan in enumerate(plans) if plan.behind]
    if behind:
        clip, row, start = (torch.tensor([one[i] for one in behind], device=device) for i in range(3))
        gain = torch.tensor([one[3] for one in behind], device=device)
        time = start[:, None] + torch.arange(frames, device=device)[None]
        clips[clip, :frames] += bank.background[row[:, None], time].float() * gain[:, None]
    return clips[:, :frames]


def wear(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Equaliser, room, noise, band limit, level: what recordings go through, each on a share of the clips.

    Without it a model takes any noise or narrow band for a class of its own. Rounded to 16 bits, as files are.
    """
    count, frames = clips.shape
    device = clips.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape or (count, 1), generator=generator, device=device)

    def share(probability: float) -> torch.Tensor:
        return (torch.rand(count, 1, generator=generator, device=device) < probability).float()

    size = 2 ** (frames + 8000 - 1).bit_length()
    frequencies = torch.fft.rfftfreq(size, 1 / RATE, device=device).clamp(min=20.0)
    octaves = torch.log2(frequencies / 20.0)
    knots = uniform(-7, 7, count, 10) * share(0.7)
    low = octaves.floor().long().clamp(0, 8)
    equaliser = torch.lerp(knots[:, low], knots[:, low + 1], (octaves - low)[None].clamp(0, 1))
    highest = torch.where(share(0.3) > 0, uniform(2800, 6500), torch.full((count, 1), 9e3, device=device))
    lowest = torch.where(share(0.3) > 0, uniform(80, 350), torch.full((count, 1), 1.0, device=device))
    band = 1 / (1 + (frequencies / highest) ** 12) / (1 + (lowest / frequencies) ** 8)
    tail = torch.randn(count, 8000, generator=generator, device=device)
    decay = uniform(0.02, 0.12) * RATE
    tail = tail * torch.exp(-torch.arange(8000, device=device) / decay) / decay.sqrt()
    room = torch.fft.rfft(tail * 10 ** (uniform(-18, 0) / 20) * share(0.5), n=size)
    spectrum = torch.fft.rfft(clips, n=size) * (1 + room) * 10 ** (equaliser / 20) * band
    worn = torch.fft.irfft(spectrum, n=size)[:, :frames]
    slope = uniform(0, 1.0)
    noise = torch.fft.irfft(
        torch.fft.rfft(torch.randn(count, size, generator=generator, device=device)) * frequencies**-slope
    )
    noise = noise[:, :frames] / noise[:, :frames].std(dim=1, keepdim=True)
    level = worn.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
    worn = worn + noise * level * 10 ** (-uniform(18, 55) / 20) * share(0.8)
    worn = worn / worn.abs().amax(1, keepdim=True).clamp(min=1e-6) * 10 ** (uniform(-26, -0.2) / 20)
    return (worn * 32767).round() / 32768
