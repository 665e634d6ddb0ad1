"""Parts of a file, without copying it."""

from __future__ import annotations

import os
from typing import Any


class Part:
    """Some bytes of a file, as a file.

    Args:
        file: that holds them.
        begin: the first of them.
        end: after the last of them.
        before: bytes that seem to come before them.
    """

    def __init__(self, file: Any, begin: int, end: int, *, before: bytes = b"") -> None:
        self._file, self._begin, self._before, self._place = file, begin, before, 0
        self._size = len(before) + end - begin

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._place = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence], 0)
        return self._place

    def tell(self) -> int:
        """As of any file."""
        return self._place

    def read(self, count: int = -1) -> bytes:
        """As of any file."""
        left = max(self._size - self._place, 0)
        count = left if count < 0 else min(count, left)
        data = self._before[self._place :][:count]
        if len(data) < count:
            data += read_at(self._file, self._begin + self._place + len(data) - len(self._before), count - len(data))
        self._place += len(data)
        return data


def read_at(file: Any, place: int, count: int) -> bytes:
    """The `count` bytes from `place` on; fewer where the file ends before."""
    file.seek(place)
    data: bytes = file.read(count)
    return data
