"""A caller's file object, held to what files promise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import AudioError


class SteadyFile:
    """A file object of which `read` gives all that was asked for, as long as there is more, and nothing beyond it.

    More bytes than were asked for would be written past the end of a decoder's buffer. Nothing else of the object is
    seen: soundfile would take a name like "x.raw" for a format.

    Args:
        file: with `read` and `seek`; it may be anywhere.
        name: for messages.

    Raises:
        AudioError: its `seek` and `tell` do not say where it ends.
    """

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name
        self._failure: Exception | None = None
        size = file.seek(0, os.SEEK_END)
        if not _is_place(size):  # as of files that return nothing
            size = file.tell()
        if not _is_place(size):
            raise AudioError(
                f"tell() of the file object returned {type(size).__name__} at its end, and must return a whole number "
                "of bytes: read it yourself and pass the bytes",
                source=name,
            )
        self._size = int(size)
        self._place, self._file_place = 0, -1  # the file's is not known

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._place = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence], 0)
        return self._place

    def tell(self) -> int:
        """As of any file."""
        return self._place

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer at the end only, and none once reading has failed.

        What fails is raised by `watched`: whoever reads may be a decoder, which an exception cannot pass through.
        """
        data = b""
        try:
            while self._failure is None and len(data) < count and (more := self._some(count - len(data))):
                data += more
        except Exception as error:
            self._failure = error
        return data

    def _some(self, count: int) -> bytes:
        if self._file_place != self._place:
            self._file.seek(self._place)
        self._file_place = -1
        data = self._file.read(count)
        if not isinstance(data, (bytes, bytearray)):
            raise AudioError(
                f"read() of the file object returned {type(data).__name__}, and must return bytes: open it as binary, "
                "or read it yourself and pass the bytes",
                source=self._name,
            )
        if len(data) > count:
            raise AudioError(
                f"read({count}) of the file object returned {len(data)} bytes, and must return no more than was asked "
                "for: read it yourself and pass the bytes",
                source=self._name,
            )
        self._place += len(data)
        self._file_place = self._place
        return bytes(data)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise what reading failed with, instead of what a decoder made of it.

        Raises:
            AudioError: `read` returned something that is not bytes, or more than was asked for.
        """
        try:
            yield
        except Exception:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
