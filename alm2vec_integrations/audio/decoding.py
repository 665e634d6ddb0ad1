"""Any recording in, 16 kHz mono out. Cut at the source's rate, then mix down, then resample, then clip to [-1, 1]."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..clips import AudioClip
from ..errors import ALM2VecError, AudioError
from .access import AccessPolicy
from .limits import MAX_SECONDS, MIN_SECONDS
from .recordings import Block, Recording, opened
from .workspace import SCRATCH_VARIABLE

SAMPLING_RATE = 16_000
"""Hz; what MiDashengLM's mel front-end takes."""

TOLERANCE_SECONDS = 0.01
"""How far `end_seconds` may lie past the end: one mel frame, for times that were rounded when written down."""


@dataclass(frozen=True)
class Extent:
    """The part of a recording that a clip covers, known from the header alone.

    Attributes:
        rate: frames per second.
        channels: in each frame.
        start: first frame of the part.
        stop: first frame after it.
        slack_seconds: by how much less than that can be heard without anything being wrong.
    """

    rate: int
    channels: int
    start: int
    stop: int
    slack_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Length of the part."""
        return (self.stop - self.start) / self.rate


def measure(clip: AudioClip, policy: AccessPolicy, *, whole: bool = False) -> Extent:
    """Read the header and say what `decode` would read.

    Args:
        clip: what is to be decoded.
        policy: for references.
        whole: the part is to be cut into segments: it may be longer than one clip may be.

    Raises:
        AudioError: the file cannot be opened as audio, the clip's times lie outside it, or a limit is passed.
        AudioAccessError: a reference that `policy` does not allow.
    """
    with _blamed_on(clip), opened(clip, policy, check_digest=False) as recording:
        return _extent(clip, recording, limited=not whole)


def decode(clip: AudioClip, policy: AccessPolicy) -> npt.NDArray[np.int16]:
    """The clip as 16 kHz mono PCM16 samples, int16 [n], at least 0.2 s of them.

    Raises:
        AudioError: as `measure`; the file is cut short or damaged; samples that are not finite.
        AudioAccessError: as `measure`; the file's bytes do not match the clip's digest.
    """
    with _blamed_on(clip), opened(clip, policy, check_digest=True) as recording:
        extent = _extent(clip, recording)
        mono = _counted(recording.blocks(extent.start, extent.stop), clip, extent)
        return _padded(np.concatenate([_to_pcm16(part) for part in _resampled(mono, extent.rate)]))


def wav_bytes(samples: npt.NDArray[np.int16]) -> bytes:
    """16 kHz mono PCM16 samples as the bytes of a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLING_RATE)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


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


def decode_all(clips: Sequence[tuple[AudioClip, str]], policy: AccessPolicy) -> list[Exception | None]:
    """Each clip decoded into a WAV file at its path; what `decode` or `write_wav` raised for it, or None."""
    errors: list[Exception | None] = []
    for clip, path in clips:
        try:
            write_wav(path, decode(clip, policy))
            errors.append(None)
        except Exception as error:
            errors.append(error)
    return errors


@contextmanager
def _blamed_on(clip: AudioClip) -> Iterator[None]:
    """Make whatever goes wrong inside an error that names the clip, so that it takes no other item down with it."""
    try:
        yield
    except (ALM2VecError, MemoryError):  # that memory ran out is not the clip's fault
        raise
    except Exception as error:
        raise AudioError(f"could not be read: {type(error).__name__}: {error}", source=clip.name) from error


def _extent(clip: AudioClip, recording: Recording, *, limited: bool = True) -> Extent:
    frames, rate = recording.frames, recording.rate
    duration = frames / rate
    if frames <= 0:
        raise AudioError("holds no samples: leave it out", source=clip.name)
    start = round((clip.start_seconds or 0.0) * rate)
    stop = frames if clip.end_seconds is None else round(clip.end_seconds * rate)
    if stop > frames + (TOLERANCE_SECONDS + recording.slack_seconds) * rate:
        raise AudioError(
            f"ends at {clip.end_seconds:g} s, but the recording at {duration:g} s: "
            "leave end_seconds out to read to the end",
            source=clip.name,
        )
    stop = min(stop, frames)
    if limited and stop - start > MAX_SECONDS * rate:
        raise AudioError(
            f"lasts {(stop - start) / rate:.0f} s, and {MAX_SECONDS} s is the most for one clip: cut it with "
            "start_seconds and end_seconds, or into many with segment()",
            source=clip.name,
        )
    if start >= stop:
        raise AudioError(
            f"the part from {clip.start_seconds or 0:g} s is empty, the recording lasts {duration:g} s at {rate} Hz: "
            "begin earlier or end later",
            source=clip.name,
        )
    return Extent(rate=rate, channels=recording.channels, start=start, stop=stop, slack_seconds=recording.slack_seconds)


def _counted(blocks: Iterator[Block], clip: AudioClip, extent: Extent) -> Iterator[npt.NDArray[np.float32]]:
    """The blocks mixed down, float32 [n], seen to be finite and as many as promised."""
    read, promised = 0, extent.stop - extent.start
    for block in blocks:
        mono = _mixed_down(block)
        with np.errstate(over="ignore", invalid="ignore"):
            total = mono.sum()
        # What is not finite makes the sum so; a sum may overflow by itself, though.
        if not np.isfinite(total) and not np.isfinite(mono).all():
            raise AudioError(
                "holds samples that are not finite (NaN or infinity): repair or leave out what made them",
                source=clip.name,
            )
        read += len(mono)
        yield mono
    if read == 0 or read < promised - extent.slack_seconds * extent.rate:
        raise AudioError(
            f"is cut short: its header promises {promised} frames from {extent.start}, {read} could be read: fetch or "
            "record it again",
            source=clip.name,
        )


def _mixed_down(block: Block) -> npt.NDArray[np.float32]:
    """The mean of the channels, column by column: numpy's own of so short an axis takes several times as long."""
    mono: npt.NDArray[np.float32] = block[:, 0]
    if block.shape[1] > 1:
        mono = mono + block[:, 1]
        for channel in range(2, block.shape[1]):
            mono += block[:, channel]
        mono *= np.float32(1.0 / block.shape[1])
    return mono


def _resampled(blocks: Iterator[npt.NDArray[np.float32]], rate: int) -> Iterator[npt.NDArray[np.float32]]:
    if rate == SAMPLING_RATE:
        yield from blocks
        return
    import soxr

    # Block by block gives the same samples as all at once.
    stream = soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _to_pcm16(mono: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    # The scale at which libsndfile reads PCM16 back, so 16 kHz mono PCM16 sources pass through bit for bit.
    scaled = mono * np.float32(32768.0)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def _padded(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    missing = round(MIN_SECONDS * SAMPLING_RATE) - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples
