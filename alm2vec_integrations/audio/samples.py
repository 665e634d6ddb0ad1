"""Recordings that are samples already, or that another library decodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..clips import AudioClip
from ..errors import AudioError
from .recordings import BLOCK_FRAMES, Block

_MOST_VALUES = 2**24
"""Samples of all channels that a decoder is asked for at once, 64 MiB; it may decode all before them again."""


class SamplesRecording:
    """An array or tensor. As `Recording`."""

    slack_seconds = 0.0

    def __init__(self, clip: AudioClip) -> None:
        source = clip.source
        if hasattr(source, "detach"):
            source = source.detach().cpu()
            if hasattr(source, "resolve_neg"):  # numpy does not read views that are to be negated when they are read
                source = source.resolve_neg()
            source = (source.float() if source.is_floating_point() else source).numpy()
        samples = np.asarray(source)
        if samples.dtype != np.int16 and samples.dtype.kind != "f":
            raise AudioError(
                f"samples must be floating point in [-1, 1] or int16, got {samples.dtype}: convert them",
                source=clip.name,
            )
        if samples.ndim == 1:
            samples = samples[:, None]
        elif clip.channels == "first":
            samples = samples.T
        self._samples = samples
        self.rate = int(clip.sampling_rate or 0)
        self.frames, self.channels = samples.shape

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`."""
        for begin in range(start, stop, BLOCK_FRAMES):
            block = self._samples[begin : min(stop, begin + BLOCK_FRAMES)]
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and found to be
                floats = block.astype(np.float32)
            yield floats / np.float32(32768.0) if block.dtype == np.int16 else floats


class DecoderRecording:
    """A torchcodec `AudioDecoder`, or what behaves like one. As `Recording`."""

    slack_seconds = 0.1
    """A frame or two of a compressed format: durations in headers are rounded to them."""

    def __init__(self, clip: AudioClip) -> None:
        self._decoder, self._name = clip.source, clip.name
        metadata = self._decoder.metadata
        # A decoder may have been told to resample, and its metadata are the file's.
        rate = getattr(self._decoder, "_desired_sample_rate", None) or getattr(metadata, "sample_rate", None)
        channels = getattr(self._decoder, "_desired_num_channels", None) or getattr(metadata, "num_channels", None)
        seconds = _first_number(metadata, "duration_seconds", "duration_seconds_from_header")
        if rate is None or channels is None or seconds is None:
            raise AudioError(
                "its decoder does not say its rate, channels and duration: decode it and pass samples with "
                "sampling_rate",
                source=self._name,
            )
        self._begin = _first_number(metadata, "begin_stream_seconds", "begin_stream_seconds_from_header") or 0.0
        self.rate, self.channels, self.frames = int(rate), int(channels), round(seconds * rate)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`."""
        most = max(_MOST_VALUES // self.channels, BLOCK_FRAMES)
        for begin in range(start, stop, most):
            data = self._asked(begin, min(begin + most, stop))
            for place in range(0, len(data), BLOCK_FRAMES):
                yield data[place : place + BLOCK_FRAMES]

    def _asked(self, start: int, stop: int) -> Block:
        got = self._decoder.get_samples_played_in_range(
            start_seconds=self._begin + start / self.rate, stop_seconds=self._begin + stop / self.rate
        )
        if int(got.sample_rate) != self.rate:
            raise AudioError(
                f"its decoder gives {got.sample_rate} samples a second where {self.rate} were announced: decode it and "
                "pass samples with sampling_rate",
                source=self._name,
            )
        return np.asarray(got.data.detach().cpu().float().numpy()).T[: stop - start]


def _first_number(metadata: Any, *names: str) -> float | None:
    values = (getattr(metadata, name, None) for name in names)
    return next((float(value) for value in values if value is not None and math.isfinite(value)), None)
