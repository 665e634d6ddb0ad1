"""Recordings that libsndfile reads: WAV and its kin, FLAC, OGG Vorbis and Opus, MP3, AIFF."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, Self

from ..clips import AudioClip
from ..errors import AudioError
from .chunks import check_chunks
from .containers import container_of
from .flac import flac_frames
from .mp3 import mp3_length_is_known
from .recordings import BLOCK_FRAMES, Block
from .views import Part, read_at

_NOT_ITS_CODEC = ("unknown error in flac decoder", "Malformed 'fmt ' chunk")  # FLAC in Ogg; codecs of telephony in WAV
_NOT_FOR_LIBSNDFILE = (1, 4)  # SF_ERR_UNRECOGNISED_FORMAT, SF_ERR_UNSUPPORTED_ENCODING

# What libsndfile reports for a stream whose header does not say how long it is, and more than any file holds.
_UNKNOWN_FRAMES = 2**48

_MP3_PREROLL_SECONDS = 1
"""More than the bit reservoir of Layer III holds at its lowest bit rate."""


_EMPTY_ID3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
"""By which libsndfile knows an MP3. Without it, it first looks for a resource fork, in files of the current folder that
are none of ours."""


class OtherReaderError(Exception):
    """libsndfile cannot read all of the file; another reader may."""


class SoundFileRecording:
    """A file, opened by libsndfile; closed when the block ends. As `Recording`.

    Args:
        file: at its beginning.
        clip: for messages.
        most_sought: the last frame that libsndfile finds by itself, None if it finds all.

    Raises:
        OtherReaderError: not a format of libsndfile's, or one whose length it does not know and so would cut.
        AudioError: one of its formats, but damaged or cut short, or with more in it than its header counts, or one that
            is not taken.
    """

    slack_seconds = 0.0

    def __init__(self, file: Any, clip: AudioClip, *, most_sought: int | None = None) -> None:
        self._name, self._most_sought = clip.name, most_sought
        containers = container_of(file, clip.name)
        if not containers:
            raise OtherReaderError("it begins like no file of libsndfile's that is taken")
        if containers == ("MP3",) and not mp3_length_is_known(file):
            raise OtherReaderError("an MP3 without a Xing header for all of it, which does not say how long it is")
        samples_end = check_chunks(file, clip.name)
        flac_length = flac_frames(file, clip.name)
        file.seek(0)
        try:
            self._file = _opened(_for_libsndfile(file, clip, containers, samples_end))
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # libsndfile's own is a RuntimeError
            detail = _detail(error)
            # An MP3 that it does not know for one it takes for something else, and says what is wrong with that.
            if (
                containers == ("MP3",)
                or getattr(error, "code", None) in _NOT_FOR_LIBSNDFILE
                or any(said in detail for said in _NOT_ITS_CODEC)
            ):
                raise OtherReaderError(detail) from error
            raise AudioError(
                f"is damaged, and cannot be opened ({detail}): fetch or record it again", source=self._name
            ) from error
        try:
            self._check_length_is_known(containers, flac_length)
        except BaseException:
            self._file.close()
            raise
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames if flac_length is None else flac_length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`, decoded block by block."""
        preroll = 0
        if self._file.format == "MP3":  # after a seek the first frames refer to bits that were not read
            preroll = min(start, self.rate * _MP3_PREROLL_SECONDS)
        elif self._most_sought is not None:
            preroll = max(start - self._most_sought, 0)
        try:
            if self._file.can_seek():
                self._file.seek(start - preroll)
            else:  # GSM and the like, as telephony has them
                preroll = start
            for _ in self._read(preroll):
                pass
            yield from self._read(stop - start)
        except (OSError, RuntimeError) as error:
            raise AudioError(f"is damaged ({_detail(error)}): fetch or record it again", source=self._name) from error

    def _read(self, frames: int) -> Iterator[Block]:
        while frames > 0:
            block: Block = self._file.read(min(frames, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if not len(block):
                return
            frames -= len(block)
            yield block

    def _check_length_is_known(self, containers: tuple[str, ...], flac_length: int | None) -> None:
        """Raise OtherReaderError where libsndfile would stop at a guess."""
        if self._file.format not in containers:
            raise OtherReaderError(f"libsndfile takes it for {self._file.format}")
        if self._file.frames >= _UNKNOWN_FRAMES and flac_length is None:
            raise OtherReaderError("its header does not say how long it is")
        if self._file.format == "WAV" and self._file.subtype.startswith("MPEG"):
            raise OtherReaderError("a WAV with MP3 inside, whose header counts more than there is")


def _for_libsndfile(file: Any, clip: AudioClip, containers: tuple[str, ...], samples_end: int) -> Any:
    """What libsndfile is to open: a descriptor or an object."""
    if containers == ("W64",):  # of which it takes what follows the samples for more of them
        return Part(file, 0, samples_end)
    is_file = clip.path is not None and type(file) is io.FileIO
    if containers == ("MP3",) and read_at(file, 0, 3) != b"ID3":
        # Its decoder reads a few bytes at a time, tens of thousands of times for a seek: by itself where that can be.
        opened_again = f"/proc/self/fd/{file.fileno()}" if is_file else ""
        if os.access(opened_again, os.R_OK):
            return opened_again  # beside which there are no other files
        return Part(file, 0, file.seek(0, os.SEEK_END), before=_EMPTY_ID3)
    file.seek(0)
    # By descriptor where it is a file: libsndfile then reads by itself, whatever bytes the path is made of.
    return os.dup(file.fileno()) if is_file else file


def _detail(error: Exception) -> str:
    said = str(getattr(error, "error_string", error))
    return said.removeprefix("Error : ").strip().rstrip(".")


def _opened(file: Any) -> Any:
    """`soundfile.SoundFile`, but after reading it stays where it is.

    soundfile seeks to that place after every read of a file that can seek. In an MP3 that is not the same: what is
    read next begins with the glitch of a seek.
    """
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

        def can_seek(self) -> bool:
            return bool(super().seekable())

    return Sequential(file, closefd=True)
