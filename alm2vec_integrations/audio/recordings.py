"""A clip's source, opened: what its header says, and its frames in blocks. One class for each way to read one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import _extras
from ..clips import AudioClip, is_decoder, is_samples
from ..errors import AudioError
from . import limits
from .access import AccessPolicy, check_unchanged
from .remembering import Remembered
from .steady import SteadyFile

if TYPE_CHECKING:
    from .ogg import Link

Block = npt.NDArray[np.float32]
"""Frames of all channels, float32 [n, channels] in [-1, 1]; float sources may go beyond."""

BLOCK_FRAMES = 2**16
"""Frames that are decoded at once; what bounds memory beside the 16 kHz result."""

_OF_LIBSNDFILE = {".wav", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf"}
_OF_FFMPEG = {".m4a", ".aac", ".mp4", ".mov", ".mka", ".mkv", ".webm"}
AUDIO_SUFFIXES = frozenset(_OF_LIBSNDFILE | _OF_FFMPEG)
"""File names that are taken for recordings where a folder is searched, in lower case."""

# A file object or decoder has one position, and clips are decoded from several threads.
_one_position = threading.Lock()


_links: Remembered[list[Link]] = Remembered()


def _forget_after_fork() -> None:
    global _one_position
    _one_position = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


class Recording(Protocol):
    """An opened source.

    Attributes:
        rate: frames per second.
        channels: in each frame.
        frames: how many there are, as the header says.
        slack_seconds: by how much decoding may give fewer than `frames` without anything being wrong; 0 where the
            header is exact.
    """

    rate: int
    channels: int
    frames: int
    slack_seconds: float

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`, and never more; fewer where the file ends before.

        Raises:
            AudioError: the file is damaged.
        """
        ...


@contextmanager
def opened(clip: AudioClip, policy: AccessPolicy, *, check_digest: bool) -> Iterator[Recording]:
    """The clip's source, within the limits on rate and channels.

    Raises:
        AudioError: it cannot be opened as audio, or its rate or channels are out of bounds.
        AudioAccessError: a reference that `policy` does not allow, or bytes that do not match the clip's digest.
    """
    from .samples import DecoderRecording, SamplesRecording

    source = clip.source
    if is_samples(source):
        yield _in_bounds(SamplesRecording(clip), clip)
    elif is_decoder(source):
        with _one_position:
            yield _in_bounds(DecoderRecording(clip), clip)
    elif clip.path is not None or isinstance(source, (bytes, bytearray, memoryview)):
        with policy.open(clip, check_digest=check_digest) as file, _decoded(file, clip) as recording:
            yield _in_bounds(recording, clip)
    else:
        with _one_position:
            steady = SteadyFile(source, clip.name)
            with steady.watched():
                if check_digest:
                    check_unchanged(clip, steady)
                with _decoded(steady, clip) as recording:
                    yield _in_bounds(recording, clip)


def _in_bounds(recording: Recording, clip: AudioClip) -> Recording:
    limits.check_format(recording.rate, recording.channels, clip.name)
    return recording


@contextmanager
def _decoded(file: Any, clip: AudioClip) -> Iterator[Recording]:
    """By libsndfile if it knows the format, else by FFmpeg if PyAV is installed."""
    from . import libsndfile, ogg

    file.seek(0, os.SEEK_END)
    limits.check_bytes(file.tell(), clip.name)
    if file.tell() == 0:
        raise AudioError("is empty (0 bytes): fetch or record it again", source=clip.name)
    file.seek(0)
    recording: Any
    links = _links.of(file, partial(ogg.ogg_links, file, clip.name))
    try:
        if len(links) > 1:
            recording = ogg.JoinedRecording(file, clip, links, libsndfile.SoundFileRecording)
        else:
            most_sought = links[0].last_page if links else None
            recording = libsndfile.SoundFileRecording(file, clip, most_sought=most_sought)
    except libsndfile.OtherReaderError as unknown:
        file.seek(0)
        recording = _by_ffmpeg(file, clip, unknown)
    with recording:
        yield recording


def _by_ffmpeg(file: Any, clip: AudioClip, unknown: Exception) -> Any:
    if not _extras.has("av"):
        raise AudioError(
            f"is not audio that libsndfile can read ({unknown}): it is something else, or damaged, or, if it is m4a, "
            f"aac, webm, video, or a stream without its length, needs PyAV, {_extras.command('av')}",
            source=clip.name,
        ) from unknown
    from .ffmpeg import FFmpegRecording

    return FFmpegRecording(file, clip)
