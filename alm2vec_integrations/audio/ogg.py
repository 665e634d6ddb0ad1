"""The recordings that lie one after the other in an Ogg file (RFC 3533), from the headers of its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..clips import AudioClip
from ..errors import AudioError
from .recordings import Block, Recording
from .remembering import Remembered
from .views import Part, read_at


class Link(NamedTuple):
    """One of the recordings in a file.

    Attributes:
        begin: its first byte.
        end: the first byte after it.
        last_page: the frame with which its last page begins. In Vorbis that page counts to where the recording ends,
            and not what it holds: libsndfile looks for a frame in it at the wrong place.
    """

    begin: int
    end: int
    last_page: int


_HEADER_BYTES = 27
_BEGINS, _ENDS = 2, 4  # bits of a page's header
_FIRST_BYTES = b"OggS\0"


def ogg_links(file: Any, name: str) -> list[Link]:
    """Where each of the file's recordings lies; none if it is not Ogg.

    libsndfile takes the first for all. What follows the last page is not looked at.

    Raises:
        AudioError: a recording without its last page, or pages with something else between them.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    links: list[Link] = []
    place = page_at = begin = position = last_page = 0
    data_seen = ends = False
    while place < size:
        page = read_at(file, place, _HEADER_BYTES + 255)
        lengths = page[_HEADER_BYTES:][: page[26]] if len(page) >= _HEADER_BYTES else b""
        if page[:5] != _FIRST_BYTES:
            # A page that was cut short says that it is longer than it is, and hides where the next one begins.
            if place and _comes_later(file, page_at + 4):
                raise AudioError(
                    "is damaged (something lies between its pages): fetch it again, or convert it to FLAC", source=name
                )
            break
        begins = bool(page[5] & _BEGINS)
        if begins and data_seen:
            _check_ends(ends, name)
            links.append(Link(begin, place, last_page))
            begin, data_seen, position, last_page = place, False, 0, 0
        data_seen |= not begins
        page_at = place
        place += _HEADER_BYTES + len(lengths) + sum(lengths)
        ends = bool(page[5] & _ENDS) and place <= size
        counted = int.from_bytes(page[6:14], "little", signed=True)
        if counted >= 0:
            last_page, position = position, counted
    file.seek(0)
    if place:
        _check_ends(ends, name)
        links.append(Link(begin, place, last_page))
    return links


def _check_ends(ends: bool, name: str) -> None:
    if not ends:
        raise AudioError(
            "is cut short: its last page does not end the stream: fetch it again, or, if this is all there is, convert "
            "it to FLAC",
            source=name,
        )


def _comes_later(file: Any, place: int) -> bool:
    """Whether another page begins at `place` or later."""
    while True:
        block = read_at(file, place, 2**20)
        if _FIRST_BYTES in block:
            return True
        if len(block) < len(_FIRST_BYTES):
            return False
        place += len(block) - len(_FIRST_BYTES) + 1


_frames: Remembered[list[int]] = Remembered()


class JoinedRecording:
    """Ogg recordings one after the other, as internet radio has them. As `Recording`.

    Args:
        file: that holds them.
        clip: for messages.
        links: where they lie.
        open_part: opens one of them.

    Raises:
        AudioError: they differ in rate or channels, or one cannot be read.
    """

    slack_seconds = 0.0

    def __init__(self, file: Any, clip: AudioClip, links: list[Link], open_part: Any) -> None:
        self._file, self._name, self._links, self._open_part, self._clip = file, clip.name, links, open_part, clip
        with self._opened(0) as first:
            self.rate, self.channels = first.rate, first.channels
        self._lengths = _frames.of(file, self._measured)
        self.frames = sum(self._lengths)

    def __enter__(self) -> JoinedRecording:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between blocks."""

    def _opened(self, number: int) -> Any:
        link = self._links[number]
        return self._open_part(Part(self._file, link.begin, link.end), self._clip, most_sought=link.last_page)

    def _measured(self) -> list[int]:
        lengths = []
        for number in range(len(self._links)):
            with self._opened(number) as recording:
                self._check_same(recording)
                lengths.append(recording.frames)
        return lengths

    def _check_same(self, recording: Recording) -> None:
        if (recording.rate, recording.channels) != (self.rate, self.channels):
            raise AudioError(
                "changes its sampling rate or channels on the way: convert it to a WAV or FLAC file", source=self._name
            )

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The frames from `start` to `stop`."""
        first = 0
        for number, frames in enumerate(self._lengths):
            if start < first + frames and stop > first:
                with self._opened(number) as recording:
                    yield from recording.blocks(max(start - first, 0), min(stop - first, frames))
            first += frames
