"""Recordings that FFmpeg reads through PyAV: m4a, aac, webm, the sound of videos, MP3 of unknown length."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from ..clips import AudioClip
from ..errors import AudioError
from . import limits
from .matroska import matroska_has_length
from .mp4 import mp4_has_length
from .recordings import BLOCK_FRAMES, Block
from .remembering import Remembered

# Demuxers that read one file and nothing it points to, and whose files are known to be heard to their end. Playlists
# and manifests, which FFmpeg would follow to other files and to the network, are none of them.
_OPTIONS = {"format_whitelist": "mov,matroska,aac,mp3", "protocol_whitelist": "none"}

_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA = "matroska,webm"  # FFmpeg's name for both

_lengths: Remembered[float] = Remembered()
_origins: Remembered[int] = Remembered()

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")

_SLACK_FRAMES = 2048
"""Lengths count a codec's delay and padding, of which nothing is heard: a frame of AAC, or two of MP3."""

_CLOCK_SECONDS = 0.002
"""Matroska's clock counts milliseconds."""

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
        self._length_is_told = self._check_is_whole()  # before FFmpeg makes room for what the header claims
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
        except MemoryError:  # PyAV's is an FFmpegError too
            raise
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(
                "is not audio of a kind that is taken, or damaged: if it is audio, convert it to WAV or FLAC first",
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
        self.slack_seconds = _SLACK_FRAMES / self.rate + _CLOCK_SECONDS
        # A codec's delay comes before time 0 and is not played.
        begin = stream.start_time or 0
        delay = float(min(begin, 0) * stream.time_base)
        self._origin = max(begin, 0)
        if stream.codec_context.name == "opus" and begin >= 0:  # fragments, and a late beginning: it comes after
            self._origin = _origins.of(self._file, self._first_heard)
        self.frames = round((self._seconds() + delay) * self.rate)

    def _check_is_whole(self) -> bool | None:
        """Whether the header of a Matroska or MP4 file says how long it is; None for others."""
        head = self._file.read(4)
        self._file.seek(0)
        return (matroska_has_length if head == _EBML else mp4_has_length)(self._file, self._name)

    def _first_heard(self) -> int:
        """When what is heard begins, in ticks of the stream's clock."""
        with self._blamed_on_the_file():
            first = next(self._frames(sought=False), None)
        self._open_again()
        if first is None or first.pts is None:
            return self._origin
        begins: int = round(first.pts * first.time_base / self._stream.time_base)
        # Of Matroska, FFmpeg says a beginning that is off where the rate before encoding was not 48 kHz; of MP4, its
        # first frame begins with what is not played.
        return begins if self._container.format.name == _MATROSKA else max(begins, self._origin)

    def _seconds(self) -> float:
        """As its packets say, undecoded: all of them, or, where the header says it too, those near that end."""
        if self._container.format.name.startswith("mov") and self._length_is_told is None:
            raise AudioError("is damaged (its boxes are not where they should be): record it again", source=self._name)
        return _lengths.of(self._file, self._counted)

    def _told_seconds(self) -> float | None:
        """From the header."""
        stream, name = self._stream, self._container.format.name
        if not self._length_is_told:
            return None
        if name == _MATROSKA:
            origin = float(self._origin * stream.time_base)
            if told := _DURATION.fullmatch(stream.metadata.get("DURATION", "")):  # the stream's end
                hours, minutes, seconds = (float(part) for part in told.groups())
                return 3600 * hours + 60 * minutes + seconds - origin
            # That of the file is the longest stream's.
            if self._container.duration is not None and len(self._container.streams) == 1:
                return float(self._container.duration / self._av.time_base) - origin
        elif name.startswith("mov") and stream.duration:
            return float(stream.duration * stream.time_base)
        return None

    def _counted(self) -> float:
        told = self._told_seconds()
        with self._blamed_on_the_file():
            has_clock = self._container.format.name not in ("aac", "mp3")
            length = self._last_end(told) if has_clock else self._sum_of_packets()
        self._open_again()
        # A header that counts too much is found out when it is decoded.
        return length if told is None or length > told + self.slack_seconds else told

    def _open_again(self) -> None:
        """At the beginning, where a seek to it may find another place."""
        self._container.close()
        self._file.seek(0)
        self._open()

    def _last_end(self, told: float | None) -> float:
        """Where the last packet ends; all are looked at, or those from shortly before the end that the header tells.

        Matroska's clock of whole milliseconds is exact to one of them there, which is added, and not in each packet's
        length, of which the sum would be wrong by seconds.
        """
        stream = self._stream
        if told is not None and told > _PREROLL_SECONDS:
            ticks = self._origin + int((told - _PREROLL_SECONDS) / stream.time_base)
            self._container.seek(ticks, stream=stream)
        end, before, last = 0, -math.inf, None
        for packet in self._container.demux(stream):
            if packet.pts is None:
                continue
            if packet.pts < before and told is None:
                raise AudioError(
                    "has a clock that goes back, as where files were joined: convert it to WAV or FLAC first",
                    source=self._name,
                )
            before, last = packet.pts, packet
            end = max(end, packet.pts - self._origin + (packet.duration or 0))
        seconds = float((end + (self._container.format.name == _MATROSKA)) * stream.time_base)
        # How long a packet of a lossless codec is, only the next one says.
        return seconds + (self._decoded_seconds(last) if last is not None and not last.duration else 0.0)

    def _decoded_seconds(self, packet: Any) -> float:
        frames = [*packet.decode(), *self._stream.codec_context.decode(None)]
        return sum(float(frame.samples) for frame in frames) / self.rate

    def _sum_of_packets(self) -> float:
        # Where MP3s were joined, FFmpeg takes a tag for a frame, of which nothing can be heard.
        packets = self._container.demux(self._stream)
        ticks = sum(packet.duration or 0 for packet in packets if packet.size and not _is_tag(packet))
        return float(ticks * self._stream.time_base)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`, decoded from a little before `start`."""
        waiting: list[Block] = []
        frames = 0
        with self._blamed_on_the_file():
            for block in self._packets(start, stop):
                waiting.append(block)
                frames += len(block)
                if frames >= BLOCK_FRAMES:  # a packet's worth is too little to be handed on by itself
                    yield np.concatenate(waiting)
                    waiting, frames = [], 0
            if waiting:
                yield np.concatenate(waiting)

    def _packets(self, start: int, stop: int) -> Iterator[Block]:
        stream = self._stream
        seconds = start / self.rate - _PREROLL_SECONDS
        if seconds > 0:
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
                # The rest of a frame that began before the place that was sought.
                if not sought and not _is_tag(packet):
                    raise

    @contextmanager
    def _blamed_on_the_file(self) -> Iterator[None]:
        try:
            yield
        except (AudioError, MemoryError):
            raise
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"is damaged ({_detail(error)}): fetch or record it again", source=self._name) from error


def _is_tag(packet: Any) -> bool:
    return bytes(packet)[:3] in (b"ID3", b"TAG")


def _detail(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
