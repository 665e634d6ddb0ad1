"""MIME types for Haystack: of videos the sound is taken, so that they too are audio."""

from __future__ import annotations

from pathlib import PurePath

from ..audio.mime_types import MIME_TYPES

UNNAMED = "audio/x-unnamed"
"""For what is audio by its bytes and has no name that says which."""


def of_path(path: str) -> str:
    """The type of audio that a file's name says; `UNNAMED` for other names."""
    return of_blob(MIME_TYPES.get(PurePath(path).suffix.lower()))


def is_audio(mime_type: object) -> bool:
    """Whether a type is one of audio."""
    return isinstance(mime_type, str) and mime_type.lower().startswith("audio/")


def of_blob(mime_type: str | None) -> str:
    """The type of bytes whose sound is taken: that of audio, also where they were called a video."""
    if is_audio(mime_type):
        return str(mime_type)
    return f"audio/{mime_type[6:]}" if mime_type is not None and mime_type.lower().startswith("video/") else UNNAMED
