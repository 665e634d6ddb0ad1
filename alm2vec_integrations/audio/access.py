"""Which files may be opened, and whether they are still the files that were meant."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
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


# Of folders on the way to a file no more is asked than to pass through them.
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_IS_LINK = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}  # as Linux, Linux of folders, and FreeBSD say it


@contextmanager
def open_file(path: str, open_descriptor: Callable[[], int] | None = None) -> Iterator[_File]:
    """A regular file, opened for reading; it is closed when the block ends.

    Args:
        path: of the file, for messages, and to open it by.
        open_descriptor: opens it in another way.

    Raises:
        AudioError: missing, not readable, not a regular file, or too large.
    """
    try:
        descriptor = os.open(path, _FLAGS) if open_descriptor is None else open_descriptor()
    except AudioAccessError:
        raise
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


def bytes_digest(data: bytes) -> str:
    """`file_digest` of a file that holds `data`."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


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
                yield _unchanged(clip, file, check_digest)
        else:
            opening = partial(self._open_inside, path) if clip.is_reference else None
            with open_file(path, opening) as file:
                yield _unchanged(clip, file, check_digest)

    def _open_inside(self, path: str) -> int:
        """A descriptor of a file that is inside the roots, whoever changes links on the way to it meanwhile."""
        if not self.roots:
            raise AudioAccessError(
                "references are not opened unless allowed_audio_roots names the folders they may point into",
                source=path,
            )
        resolved = _resolved(path)
        for root in map(_resolved, self.roots):
            if resolved.is_relative_to(root):
                return _open_below(root, resolved, path)
        raise AudioAccessError(
            "the reference points outside allowed_audio_roots: name its folder there if it may be opened", source=path
        )


def _unchanged(clip: AudioClip, file: _File, check_digest: bool) -> _File:
    if check_digest:
        check_unchanged(clip, file)
    return file


def _open_below(root: Path, resolved: Path, path: str) -> int:
    """Open `resolved` from `root` on, folder by folder, none of which may be a link: they were, before, none."""
    if os.open not in os.supports_dir_fd:
        return _open_and_compare(resolved, path)
    parts = resolved.relative_to(root).parts
    try:
        if not parts:
            return os.open(root, _FLAGS | _NO_LINKS)
        folder = os.open(root, _FOLDER_FLAGS | _NO_LINKS)
        try:
            for part in parts[:-1]:
                below = os.open(part, _FOLDER_FLAGS | _NO_LINKS, dir_fd=folder)
                os.close(folder)
                folder = below
            return os.open(parts[-1], _FLAGS | _NO_LINKS, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _IS_LINK and _resolved(path) != resolved:
            raise AudioAccessError("the path changed while it was opened", source=path) from error
        raise


def _open_and_compare(resolved: Path, path: str) -> int:
    """Where folders cannot be opened one in another, as on Windows."""
    descriptor = os.open(resolved, _FLAGS)
    if resolved.resolve() != resolved or not os.path.samestat(os.fstat(descriptor), resolved.lstat()):
        os.close(descriptor)
        raise AudioAccessError("the path changed while it was opened", source=path)
    return descriptor


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
