"""Any recording in, 16 kHz mono out. Cut at the source's rate, then mix down, then resample, then clip to [-1, 1]."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ALM2VecError, AudioError
from ..inputs import AudioClip
from .access import AccessPolicy, check_unchanged
from .workspace import SCRATCH_VARIABLE

SAMPLING_RATE = 16_000
"""Hz; what MiDashengLM's mel front-end takes."""

MIN_SECONDS = 0.2
"""Shorter clips are padded with silence: under 0.19 s the architecture yields no audio token."""

MAX_SECONDS = 3600
"""The longest part that is decoded as one clip: an hour is 230 MB of 16 kHz float32."""

# What libsndfile reports for a stream whose header does not say how long it is, and more than any file holds.
_UNKNOWN_FRAMES = 2**48

_LENGTH_UNKNOWN = 0x7FFFF000
_CUT_SHORT = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (?P<promised>\d+) \(should be (?P<there>\d+)\)", re.MULTILINE
)

TOLERANCE_SECONDS = 0.01
"""How far `end_seconds` may lie past the end: one mel frame, for times that were rounded when written down."""

# A file object has one position, and clips are decoded from several threads.
_file_objects = threading.Lock()


def _forget_after_fork() -> None:
    global _file_objects
    _file_objects = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


@dataclass(frozen=True)
class Extent:
    """The part of a recording that a clip covers, known from the header alone."""

    rate: int
    channels: int
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        """Length of the part."""
        return (self.stop - self.start) / self.rate


def measure(clip: AudioClip, policy: AccessPolicy) -> Extent:
    """Read the header and say what `decode` would read.

    Raises:
        AudioError: the file cannot be opened as audio, or the clip's times lie outside it.
        AudioAccessError: a reference that `policy` does not allow.
    """
    if _is_samples(clip):
        with _blamed_on(clip):
            return _extent(clip, len(clip.source), int(clip.sampling_rate or 0), 1)
    with _blamed_on(clip), _open(clip, policy, check_digest=False) as file:
        return _extent(clip, file.frames, file.samplerate, file.channels)


def decode(clip: AudioClip, policy: AccessPolicy) -> npt.NDArray[np.int16]:
    """The clip as 16 kHz mono PCM16 samples, int16 [n], at least 0.2 s of them.

    Raises:
        AudioError: as `measure`; the file is cut short or damaged; samples that are not finite.
        AudioAccessError: as `measure`; the file's bytes do not match the clip's digest.
    """
    with _blamed_on(clip):
        if _is_samples(clip):
            samples = _samples_as_float(clip)
            extent = _extent(clip, len(samples), int(clip.sampling_rate or 0), 1)
            part = samples[extent.start : extent.stop]
        else:
            with _open(clip, policy, check_digest=True) as file:
                extent = _extent(clip, file.frames, file.samplerate, file.channels)
                part = _read(clip, file, extent)
        mono = part.mean(axis=1) if part.ndim == 2 else part
        if not np.isfinite(mono).all():
            raise AudioError("holds samples that are not finite (NaN or infinity)", source=clip.name)
        return _to_pcm16(_resample(mono, extent.rate))


def write_wav(path: str, samples: npt.NDArray[np.int16]) -> None:
    """Write 16 kHz mono PCM16 samples as a WAV file.

    Raises:
        ALM2VecError: the file cannot be written, as when the folder for temporary audio is full.
    """
    import soundfile

    try:
        soundfile.write(path, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    except (OSError, RuntimeError) as error:
        raise ALM2VecError(
            f"{path}: {2 * len(samples)} bytes of temporary audio could not be written ({error}): set "
            f"{SCRATCH_VARIABLE} to a folder with more room, or lower max_batch_seconds"
        ) from error


def _is_samples(clip: AudioClip) -> bool:
    return clip.sampling_rate is not None


@contextmanager
def _open(clip: AudioClip, policy: AccessPolicy, *, check_digest: bool) -> Iterator[Any]:
    """The clip's source as an open `soundfile.SoundFile`."""
    source = clip.source
    if clip.path is not None or isinstance(source, (bytes, bytearray, memoryview)):
        with policy.open(clip, check_digest=check_digest) as file, _sound_file(file, clip) as opened:
            yield opened
    else:
        with _file_objects:
            if check_digest:
                source.seek(0)
                check_unchanged(clip, source)
            source.seek(0)
            with _sound_file(source, clip) as opened:
                yield opened


def _sound_file(file: Any, clip: AudioClip) -> Any:
    import soundfile

    try:
        # By descriptor where there is one: libsndfile then reads by itself, whatever bytes the path is made of.
        opened = soundfile.SoundFile(os.dup(file.fileno()) if clip.path is not None else file, closefd=True)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # libsndfile's own is a RuntimeError
        detail = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(
            f"is not audio that can be opened ({detail}): WAV, FLAC, OGG, MP3 and AIFF are read", source=clip.name
        ) from error
    _check_is_whole(opened, clip)
    return opened


@contextmanager
def _blamed_on(clip: AudioClip) -> Iterator[None]:
    """Make whatever goes wrong inside an error that names the clip, so that it takes no other item down with it."""
    try:
        yield
    except ALM2VecError:
        raise
    except Exception as error:
        raise AudioError(f"could not be read: {type(error).__name__}: {error}", source=clip.name) from error


def _check_is_whole(file: Any, clip: AudioClip) -> None:
    """Raise AudioError for a file that ends before its data does; libsndfile reads what is there and only logs it."""
    for line in _CUT_SHORT.finditer(file.extra_info):
        promised, there = int(line["promised"]), int(line["there"])
        # Programs that write to a pipe cannot know the length and leave a number near the largest that fits.
        if there < promised < _LENGTH_UNKNOWN:
            raise AudioError(
                f"is cut short: its header promises {promised} bytes of samples, {there} are there", source=clip.name
            )


def _extent(clip: AudioClip, frames: int, rate: int, channels: int) -> Extent:
    duration = frames / rate
    if frames <= 0:
        raise AudioError("holds no samples", source=clip.name)
    start = round((clip.start_seconds or 0.0) * rate)
    stop = frames if clip.end_seconds is None else round(clip.end_seconds * rate)
    if stop > frames + TOLERANCE_SECONDS * rate:
        raise AudioError(
            f"ends at {clip.end_seconds:g} s, but the recording at {duration:g} s: "
            "leave end_seconds out to read to the end",
            source=clip.name,
        )
    stop = min(stop, frames)
    if stop - start > MAX_SECONDS * rate:
        lasts = f"{(stop - start) / rate:.0f} s" if frames < _UNKNOWN_FRAMES else "an unknown time"
        raise AudioError(
            f"lasts {lasts}, and {MAX_SECONDS} s is the most for one clip: cut it with start_seconds and end_seconds",
            source=clip.name,
        )
    if start >= stop:
        raise AudioError(
            f"the part from {clip.start_seconds or 0:g} s is empty: the recording lasts {duration:g} s at {rate} Hz",
            source=clip.name,
        )
    return Extent(rate=rate, channels=channels, start=start, stop=stop)


def _read(clip: AudioClip, file: Any, extent: Extent) -> npt.NDArray[np.float32]:
    wanted = extent.stop - extent.start
    try:
        if file.seekable():
            file.seek(extent.start)
        else:  # GSM and the like, as telephony has them
            file.read(extent.start, dtype="float32")
        part: npt.NDArray[np.float32] = file.read(wanted, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioError(f"is damaged: {getattr(error, 'error_string', error)}", source=clip.name) from error
    if len(part) < wanted:
        raise AudioError(
            f"is cut short: its header promises {wanted} frames from {extent.start}, {len(part)} could be read",
            source=clip.name,
        )
    return part


def _samples_as_float(clip: AudioClip) -> npt.NDArray[np.float32]:
    source = clip.source
    if hasattr(source, "detach"):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    samples = np.asarray(source)
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768.0)
    if samples.dtype.kind != "f":
        raise AudioError(
            f"samples must be floating point in [-1, 1] or int16, got {samples.dtype}: convert them", source=clip.name
        )
    return samples.astype(np.float32)


def _resample(mono: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    if rate == SAMPLING_RATE:
        return mono
    import soxr

    resampled: npt.NDArray[np.float32] = soxr.resample(mono, rate, SAMPLING_RATE, quality="HQ")
    return resampled


def _to_pcm16(mono: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    # The scale at which libsndfile reads PCM16 back, so 16 kHz mono PCM16 sources pass through bit for bit.
    scaled = np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)
    missing = round(MIN_SECONDS * SAMPLING_RATE) - len(scaled)
    return np.pad(scaled, (0, missing)) if missing > 0 else scaled
