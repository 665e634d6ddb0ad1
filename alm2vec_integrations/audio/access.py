"""Which files may be opened, and whether they are still the files that were meant."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..clips import AudioClip
from ..errors import AudioAccessError, AudioError, InputError
from .limits import check_bytes
from .remembering import Remembered

_File = io.FileIO | io.BytesIO

DIGEST_LENGTH = 16  # hex digits; 64 bits tell edited files apart, they do not guard against forgery

# O_NONBLOCK: opening a FIFO would wait for a writer before it could be refused.
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def open_file(path: str) -> Iterator[_File]:
    """A regular file, opened for reading; it is closed when the block ends.

    Raises:
        AudioError: missing, not readable, not a regular file, or too large.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot be opened ({why}): check the path and its permissions", source=path) from error
    try:
        status = os.fstat(descriptor)
        _check_regular(status.st_mode, path)
        check_bytes(status.st_size, path)
    except BaseException:
        os.close(descriptor)
        raise
    # Without a buffer of Python's: libsndfile reads the same descriptor, and the two would not agree on the place.
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield file


def file_digest(path: str) -> str:
    """The first 16 hex digits of the SHA-256 of the file's bytes.

    Raises:
        AudioError: the file cannot be read.
    """
    with open_file(path) as file:
        return _digest(file, path)


def check_unchanged(clip: AudioClip, file: Any) -> None:
    """Raise AudioAccessError unless the bytes of `file`, from here on, have the clip's digest, if it has one."""
    if clip.digest is not None and _digest(file, clip.name) != clip.digest:
        raise AudioAccessError(
            "the file's bytes have changed since the reference was made: index it again", source=clip.name
        )


class AccessPolicy:
    """The folders that references may point into; none by default.

    Args:
        roots: folders, or single files; symbolic links in them and in the references are resolved before comparing.

    Raises:
        InputError: a root that is empty or not a path.
    """

    def __init__(self, roots: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None) -> None:
        if roots is None:
            roots = ()
        elif isinstance(roots, (str, os.PathLike)):
            roots = (roots,)
        if not isinstance(roots, Sequence) or not all(isinstance(root, (str, os.PathLike)) for root in roots):
            raise InputError(f"allowed_audio_roots must be folders, got {roots!r}")
        self.roots = tuple(os.fspath(root) for root in roots)
        if not all(isinstance(root, str) and root and "\0" not in root and _is_path(root) for root in self.roots):
            raise InputError("allowed_audio_roots holds an empty or impossible path; write '.' for the current folder")

    @contextmanager
    def open(self, clip: AudioClip, *, check_digest: bool) -> Iterator[_File]:
        """The clip's file or bytes, once they are allowed and, if asked, unchanged.

        Raises:
            AudioAccessError: a reference outside the roots, or bytes that do not match the digest.
            AudioError: the file is missing or unreadable.
        """
        path = clip.path
        if path is None:
            with io.BytesIO(clip.source) as file:
                self._admit(clip, file, None, check_digest)
                yield file
        else:
            if clip.is_reference:
                self._check_inside(path)
            with open_file(path) as file:
                self._admit(clip, file, path, check_digest)
                yield file

    def _admit(self, clip: AudioClip, file: _File, path: str | None, check_digest: bool) -> None:
        if clip.is_reference and path is not None:
            # Asked again of the file that is open now: a link may have been changed since it was first asked.
            resolved = self._check_inside(path)
            if not os.path.samestat(os.fstat(file.fileno()), resolved.stat()):
                raise AudioAccessError("the path changed while it was opened", source=clip.name)
        if check_digest:
            check_unchanged(clip, file)

    def _check_inside(self, path: str) -> Path:
        if not self.roots:
            raise AudioAccessError(
                "references are not opened unless allowed_audio_roots names the folders they may point into",
                source=path,
            )
        resolved = _resolved(path)
        if not any(resolved.is_relative_to(_resolved(root)) for root in self.roots):
            raise AudioAccessError(
                "the reference points outside allowed_audio_roots: name its folder there if it may be opened",
                source=path,
            )
        return resolved


def _resolved(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise AudioAccessError(f"cannot be resolved ({error}): check its symbolic links", source=path) from error


def _is_path(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _check_regular(mode: int, path: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise AudioError("is a directory: pass the files in it", source=path)
    raise AudioError("is not a regular file: copy its contents into one", source=path)


_digests: Remembered[str] = Remembered()


def _digest(file: Any, name: str) -> str:
    return _digests.of(file, partial(_read_digest, file, name))


def _read_digest(file: Any, name: str) -> str:
    try:
        hashed = hashlib.sha256()
        while block := file.read(2**20):
            hashed.update(block)
        file.seek(0)
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}", source=name) from error
    return hashed.hexdigest()[:DIGEST_LENGTH]
