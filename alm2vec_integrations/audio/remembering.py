"""What was found by reading a whole file, kept while the file stays as it is."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")

_MOST_FILES = 4096

# Of a file that changed less than this before it was read, nothing is kept: another change in the same tick of the
# file system's clock would not show.
_SETTLED_NS = 2 * 10**9


class Remembered(Generic[Found]):
    """Answers about files by what the file system says of them.

    The segments of one long file need its digest and its length each, and reading all of it once is enough.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], Found] = {}

    def of(self, file: Any, find: Callable[[], Found]) -> Found:
        """What `find` returned for this state of the file, or returns now. What it raises is not kept."""
        key = _state(file)
        if key is not None and key in self._found:
            return self._found[key]
        began = time.time_ns()
        found = find()
        if key is not None and began - max(key[3:]) > _SETTLED_NS and _state(file) == key:
            if len(self._found) >= _MOST_FILES:
                self._found.clear()
            self._found[key] = found
        return found


def _state(file: Any) -> tuple[int, ...] | None:
    """Device, inode, size and times of change of a file that `open_file` opened.

    Other objects may have a descriptor whose bytes are not theirs, as those that decompress have.
    """
    if not isinstance(file, io.FileIO):
        return None
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
