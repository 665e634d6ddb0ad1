"""Recordings that FFmpeg reads through PyAV: m4a, aac, webm, and the sound of videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from ..clips import AudioClip
from ..errors import AudioError
from . import limits
from .recordings import BLOCK_FRAMES, Block
from .remembering import Remembered

# Demuxers that read one file and nothing it points to. Playlists and manifests, which FFmpeg would follow to other
# files and to the network, are none of them.
_FORMATS = "mov,matroska,aac,mp3,ogg,flac,wav,w64,caf,aiff,asf,avi,flv,mpegts,mpeg,amr,ac3,eac3,wv,tta,ape"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}

# Where FFmpeg guesses a length from the bit rate of the beginning, or from a header that we did not trust, or takes
# that of the pictures for that of the sound.
_GUESSED = ("aac", "mp3", "flac", "ogg", "avi", "flv")

_OWN_CLOCK = ("avi", "flv")
"""Containers that say of each packet when it is played, once and for all."""

_lengths: Remembered[float] = Remembered()

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")

_SLACK_SECONDS = 0.25
"""Durations in headers count a codec's delay and padding, a few frames of up to 2048 samples."""

_COUNTED_SLACK = 0.01
"""More, as a share of a length that was counted: where MP3s were joined, a frame is lost at each join and tag."""

_PREROLL_SECONDS = 1.0
"""Decoded before a cut and dropped: Opus needs 80 ms to converge, AAC two frames, MP3 what its bit reservoir holds."""


class FFmpegRecording:
    """The best audio stream of a file; closed when the block ends. As `Recording`.

    Args:
        file: at its beginning.
        clip: for messages.

    Raises:
        AudioError: not a format that FFmpeg reads, damaged, or without sound.
    """

    slack_seconds: float

    def __init__(self, file: Any, clip: AudioClip) -> None:
        import av

        self._av, self._name, self._file = av, clip.name, file
        self.slack_seconds = _SLACK_SECONDS
        self._open()
        try:
            self._read_header()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _open(self) -> None:
        try:
            self._container = self._av.open(self._file, mode="r", options=_OPTIONS)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(
                f"is not audio that libsndfile or FFmpeg can open ({_detail(error)}): it is something else, or damaged",
                source=self._name,
            ) from error
        self._stream = self._container.streams.best("audio")
        if self._stream is None:
            self._container.close()
            raise AudioError("holds no sound: none of its streams is audio", source=self._name)
        self._stream.codec_context.thread_count = 1  # files are decoded side by side

    def _read_header(self) -> None:
        stream = self._stream
        self.rate: int = stream.codec_context.sample_rate or 0
        self.channels: int = stream.codec_context.channels or 0
        limits.check_format(self.rate, self.channels, self._name)  # before the duration is looked for
        # A codec's delay comes before time 0 and is not played.
        delay = float(min(stream.start_time or 0, 0) * stream.time_base)
        self._origin = max(stream.start_time or 0, 0)
        self.frames = round((self._seconds() + delay) * self.rate)

    def _seconds(self) -> float:
        """From the header; where it does not say, from the packets, undecoded."""
        stream = self._stream
        guessed = self._container.format.name in _GUESSED
        if stream.duration is not None and not guessed:
            return float(stream.duration * stream.time_base)
        origin = float(self._origin * stream.time_base)
        if (told := _DURATION.fullmatch(stream.metadata.get("DURATION", ""))) and not guessed:  # Matroska: its end
            hours, minutes, seconds = (float(part) for part in told.groups())
            return 3600 * hours + 60 * minutes + seconds - origin
        # That of the file is the longest stream's.
        only = len(self._container.streams) == 1
        if self._container.duration is not None and only and not guessed:
            return float(self._container.duration / self._av.time_base) - origin
        length = _lengths.of(self._file, self._counted)
        self.slack_seconds += _COUNTED_SLACK * length
        return length

    def _counted(self) -> float:
        stream, length = self._stream, 0.0
        try:
            if self._container.format.name == "ogg":
                # Joined files, where each packet's own length counts what its stream's header cuts off.
                length = sum(frame.samples for frame in self._container.decode(stream)) / self.rate
            else:
                length = self._packets_seconds()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        # Opened again, since a seek to the beginning may find that of a later stream.
        self._container.close()
        self._file.seek(0)
        self._open()
        return length

    def _packets_seconds(self) -> float:
        # A clock of whole milliseconds is exact from the first packet to the last, and not in each of them.
        counted, end, base = 0.0, 0.0, self._stream.time_base
        for packet in self._container.demux(self._stream):
            duration = float((packet.duration or 0) * base)
            counted += duration
            if packet.pts is not None:
                end = max(end, float((packet.pts - self._origin) * base) + duration)
            if counted > limits.MAX_BYTES:  # far past any limit; its timestamps are nonsense
                break
        return end if self._container.format.name in _OWN_CLOCK else counted

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`, decoded from a little before `start`."""
        waiting: list[Block] = []
        frames = 0
        try:
            for block in self._packets(start, stop):
                waiting.append(block)
                frames += len(block)
                if frames >= BLOCK_FRAMES:  # a packet's worth is too little to be handed on by itself
                    yield np.concatenate(waiting)
                    waiting, frames = [], 0
            if waiting:
                yield np.concatenate(waiting)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _packets(self, start: int, stop: int) -> Iterator[Block]:
        stream = self._stream
        seconds = start / self.rate - _PREROLL_SECONDS
        # Each stream of a chained Ogg file, the only kind that comes here, has a clock of its own.
        if seconds > 0 and self._container.format.name != "ogg":
            self._container.seek(self._origin + int(seconds / stream.time_base), stream=stream)
        # Of the format alone; interleaved, since PyAV crashes on frames of more than eight planes.
        interleave = self._av.AudioResampler(format="flt")
        position: int | None = None
        for frame in self._frames(sought=seconds > 0):
            if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
                raise AudioError(
                    "changes its sampling rate or channels on the way: convert it to a WAV or FLAC file",
                    source=self._name,
                )
            if position is None:
                # Counted on from here: later timestamps are rounded to the container's clock.
                since = 0.0 if frame.pts is None else float((frame.pts - self._origin) * frame.time_base)
                position = round(since * self.rate)
            for plain in interleave.resample(frame):
                block = plain.to_ndarray().reshape(-1, self.channels)
                begin, end = max(start - position, 0), min(stop - position, len(block))
                position += len(block)
                if end > begin:
                    yield block[begin:end]
                if position >= stop:
                    return

    def _frames(self, *, sought: bool) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            try:
                for frame in packet.decode():
                    sought = False
                    yield frame
            except self._av.error.InvalidDataError:
                # The rest of a frame that began before the place that was sought; or where MP3s were joined, tags and
                # all, which FFmpeg takes for a frame.
                if not sought and bytes(packet)[:3] != b"ID3":
                    raise

    def _damaged(self, error: Exception) -> AudioError:
        return AudioError(f"is damaged ({_detail(error)}): fetch or record it again", source=self._name)


def _detail(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
