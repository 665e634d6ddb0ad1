"""Which files a reference may open, and whether they are still the files that were meant."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import AudioAccessError, AudioError
from ..inputs import AudioClip

DIGEST_LENGTH = 16  # hex digits; 64 bits tell edited files apart, they do not guard against forgery


def check_is_file(path: str) -> None:
    """Raise AudioError unless `path` is a regular file (opening a FIFO would wait forever)."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror or error}", source=path) from error
    if stat.S_ISDIR(mode):
        raise AudioError("is a directory: pass the files in it", source=path)
    if not stat.S_ISREG(mode):
        raise AudioError("is not a regular file: copy its contents into one", source=path)


def file_digest(path: str) -> str:
    """The first 16 hex digits of the SHA-256 of the file's bytes.

    Raises:
        AudioError: the file cannot be read.
    """
    check_is_file(path)
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}", source=path) from error


class AccessPolicy:
    """The folders that references may point into; none by default.

    Args:
        roots: folders; symbolic links in them and in the references are resolved before comparing.
    """

    def __init__(self, roots: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None) -> None:
        if roots is None:
            roots = ()
        elif isinstance(roots, (str, os.PathLike)):
            roots = (roots,)
        self.roots = tuple(os.fspath(root) for root in roots)

    def admit(self, clip: AudioClip) -> AudioClip:
        """The clip to open: a reference with its path resolved, once allowed and its digest checked.

        Raises:
            AudioAccessError: a reference outside the roots, or bytes that do not match the digest.
            AudioError: the file is missing or unreadable.
        """
        path = clip.path
        if path is None:
            return clip
        if clip.is_reference:
            path = self._resolve(path)
            clip = dataclasses.replace(clip, source=path)
        if clip.digest is not None and file_digest(path) != clip.digest:
            raise AudioAccessError(
                "the file's bytes have changed since the reference was made: index it again", source=clip.name
            )
        return clip

    def _resolve(self, path: str) -> str:
        if not self.roots:
            raise AudioAccessError(
                "references are not opened unless allowed_audio_roots names the folders they may point into",
                source=path,
            )
        resolved = Path(path).resolve()
        if not any(resolved.is_relative_to(Path(root).resolve()) for root in self.roots):
            raise AudioAccessError(f"the reference points outside allowed_audio_roots {list(self.roots)}", source=path)
        return str(resolved)
