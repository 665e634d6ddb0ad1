"""What a recording may be. Checked from headers, before anything is decoded."""

from __future__ import annotations

from ..errors import AudioError

MIN_SECONDS = 0.2
"""Shorter clips are padded with silence: under 0.19 s the architecture yields no audio token."""

MAX_SECONDS = 3600
"""The longest clip: an hour is 115 MB of 16 kHz PCM16, and 18,000 audio tokens."""

TRAINED_SECONDS = 30
"""The longest clips that the model was trained on; past it is worth a word."""

MIN_RATE = 1_000
"""Hz. Below it a file is not a recording of sound, whatever its header says."""

MAX_RATE = 500_000
"""Hz; what ultrasound recorders reach."""

MAX_CHANNELS = 32

MAX_BYTES = 16 * 2**30
"""Of a file: a day of 96 kHz stereo PCM16, and more than a digest should read."""


def check_format(rate: float, channels: int, source: str) -> None:
    """Raise AudioError for a rate or a number of channels out of bounds."""
    if not MIN_RATE <= rate <= MAX_RATE:
        said = f"{rate:g}" if rate < MAX_BYTES else "far too many"  # a whole number may be larger than any float
        raise AudioError(
            f"has {said} samples a second, and {MIN_RATE} to {MAX_RATE} are taken: its header may be wrong; if it is "
            "not, resample it first",
            source=source,
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"has {channels} channels, and {MAX_CHANNELS} is the most: mix it down, or pick the ones to hear",
            source=source,
        )


def check_bytes(size: int, source: str) -> None:
    """Raise AudioError for a file that is too large."""
    if size > MAX_BYTES:
        raise AudioError(
            f"is {size / 2**30:.1f} GiB large, and {MAX_BYTES // 2**30} GiB is the most: split it into files",
            source=source,
        )
