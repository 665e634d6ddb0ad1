"""MIME types of recordings by the ending of their names.

Not from Python's `mimetypes`, whose answers depend on its version and on the machine.
"""

from __future__ import annotations

MIME_TYPES = {
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".au": "audio/basic",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mka": "audio/matroska",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".rf64": "audio/wav",
    ".w64": "audio/x-w64",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}
"""For every ending that is taken for a recording's where a folder is searched."""
