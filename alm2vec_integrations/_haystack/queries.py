"""Queries of any kind as items to embed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from haystack.dataclasses import ByteStream

from ..clips import AudioClip
from ..errors import InputError
from ..inputs import AudioText, Item
from .documents import END, START

AudioSource = str | Path | ByteStream
"""A path, or the bytes of a file. The name of the argument says that it is audio."""


def query_item(audio: AudioSource | list[AudioSource] | None, text: str | None, root_path: str | None) -> Item:
    """One query.

    Args:
        audio: a recording; or a list of exactly one, as converters and routers hand them on.
        text: a query in words; or, with audio, a question about it.
        root_path: the folder that paths are relative to and must lie in; None opens any.

    Raises:
        TypeError: either is of another type.
        InputError: both are None, the list holds another number, or a URL.
    """
    if text is not None and not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    if isinstance(audio, list):
        if len(audio) != 1:
            raise InputError(f"audio must be one recording, or a list of exactly one, got {len(audio)}")
        audio = audio[0]
    if audio is None:
        if text is None:
            raise InputError("a query needs audio, text, or both, and both are None")
        return text
    clip = _clip(audio, root_path)
    return clip if text is None else AudioText(text, clip)


def _clip(audio: Any, root_path: str | None) -> AudioClip:
    if isinstance(audio, ByteStream):
        meta = audio.meta
        label = meta.get("file_path")
        return AudioClip(
            audio.data,
            start_seconds=meta.get(START),
            end_seconds=meta.get(END),
            label=None if label is None else str(label),
        )
    if not isinstance(audio, (str, Path)):
        raise TypeError(f"audio must be a path or a ByteStream, got {type(audio).__name__}")
    clip = AudioClip(audio)  # refuses URLs
    return clip if root_path is None else AudioClip(str(Path(root_path, audio)), is_reference=True, label=clip.label)


@contextmanager
def haystacks_words() -> Iterator[None]:
    """Make errors call folders by the name that they have here."""
    try:
        yield
    except InputError as error:
        reason = error.reason.replace("allowed_audio_roots", "root_path")
        raise type(error)(reason, index=error.index, source=error.source) from error
