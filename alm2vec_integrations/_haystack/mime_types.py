"""MIME types of recordings by file name, the same on every machine: Python's own table depends on the system's."""

from __future__ import annotations

from pathlib import PurePath

MIME_TYPES = {
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".au": "audio/basic",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mka": "audio/matroska",
    ".mkv": "audio/matroska",
    ".mov": "audio/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "audio/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".rf64": "audio/wav",
    ".w64": "audio/x-w64",
    ".wav": "audio/wav",
    ".webm": "audio/webm",
}
"""Of videos the sound is taken, so that they too are audio."""

UNNAMED = "audio/x-unnamed"
"""For what is audio by its bytes and has no name that says which."""


def of_path(path: str) -> str:
    """The type that a file's name says; `UNNAMED` for other names."""
    return MIME_TYPES.get(PurePath(path).suffix.lower(), UNNAMED)


def is_audio(mime_type: object) -> bool:
    """Whether a type is one of audio."""
    return isinstance(mime_type, str) and mime_type.lower().startswith("audio/")


def of_blob(mime_type: str | None) -> str:
    """The type of bytes whose sound is taken: that of audio, also where they were called a video."""
    if is_audio(mime_type):
        return str(mime_type)
    return f"audio/{mime_type[6:]}" if mime_type is not None and mime_type.lower().startswith("video/") else UNNAMED
