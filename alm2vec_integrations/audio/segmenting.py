"""Long recordings, and folders of them, as clips of a bounded length; known from headers alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

from .. import references
from ..clips import MOST_SECONDS, AudioClip
from ..errors import AudioError, InputError
from .access import AccessPolicy
from .decoding import TOLERANCE_SECONDS, measure
from .limits import TRAINED_SECONDS
from .recordings import AUDIO_SUFFIXES


def segment(
    source: AudioClip | str | os.PathLike[str],
    *,
    segment_seconds: float = TRAINED_SECONDS,
    hop_seconds: float | None = None,
    min_seconds: float = 1.0,
    allowed_audio_roots: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    on_error: Callable[[AudioError], Any] | None = None,
) -> Iterator[AudioClip]:
    """Cut a recording, or every recording in a folder, into clips with times. Reads headers and decodes nothing.

    Segments begin every `hop_seconds` and last `segment_seconds`, until one reaches the end. Nothing is left out: a
    rest shorter than `min_seconds` lengthens the segment before it. The same recording gives the same segments, with
    the same `AudioClip.id`, in every run.

    Args:
        source: a clip (of which the part that its times name is cut), a file, or a folder, which is walked in the order
            of names with its subfolders; hidden files and files without the name of a recording are passed over.
        segment_seconds: length of a segment; by default the longest that the model was trained on.
        hop_seconds: from the beginning of one segment to that of the next; `segment_seconds` if None, less for overlap.
        min_seconds: the shortest rest that is a segment of its own; less than 0.01 s never is, nor what a compressed
            format's header may count too much (0.05 s at 44.1 kHz).
        allowed_audio_roots: folders that a clip made by `AudioClip.from_reference` may point into.
        on_error: called with the error of each recording in a folder that cannot be read, and of each folder in it that
            cannot be listed; if None, it is raised.

    Yields:
        Clips of the source with `start_seconds` and `end_seconds`, in order of time.

    Raises:
        InputError: lengths that are not more than 0, or a hop that would leave gaps.
        AudioError: a recording cannot be read, or a folder cannot be listed.
    """
    hop = segment_seconds if hop_seconds is None else hop_seconds
    for name, value in (("segment_seconds", segment_seconds), ("hop_seconds", hop), ("min_seconds", min_seconds)):
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        least = 0.0 if name == "min_seconds" else TOLERANCE_SECONDS
        if not is_number or not least <= value < MOST_SECONDS:
            raise InputError(f"{name} must be a number of seconds, {least} or more, got {value!r}")
    if hop > segment_seconds:
        raise InputError(f"hop_seconds ({hop}) past segment_seconds ({segment_seconds}) would leave gaps")
    if min_seconds > segment_seconds:
        raise InputError(f"min_seconds ({min_seconds}) cannot be more than segment_seconds ({segment_seconds})")
    if not isinstance(source, AudioClip):
        path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        if not isinstance(path, str) or not path:
            raise InputError(f"segment takes an AudioClip, a file or a folder, got {source!r}")
        if not _is_folder(path):
            source = AudioClip(path)
    if on_error is not None and not callable(on_error):
        raise InputError(f"on_error must be a function of one error, got {on_error!r}")
    policy = AccessPolicy(allowed_audio_roots)
    # A generator runs nothing before it is asked; arguments are checked now.
    return _segments(source, policy, (segment_seconds, hop, min_seconds), on_error)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # no name that could be one; whoever opens it says why
        return False


def audio_files(folder: str | os.PathLike[str], on_error: Callable[[AudioError], Any] | None = None) -> Iterator[Path]:
    """The recordings in a folder and its subfolders, in the order of names; hidden files and linked folders left out.

    Args:
        folder: where to begin.
        on_error: called with the error of each folder that cannot be listed, and then the next is; if None, it is
            raised.

    Raises:
        AudioError: a folder cannot be listed.
    """
    # A stack of its own: folders may be nested deeper than calls may.
    levels = [iter(_listed(os.fspath(folder), on_error))]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry.name.startswith("."):
            continue
        elif _is_own_folder(entry):
            levels.append(iter(_listed(entry.path, on_error)))
        elif Path(entry.name).suffix.lower() in AUDIO_SUFFIXES:
            yield Path(entry.path)


def _listed(folder: str, on_error: Callable[[AudioError], Any] | None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        failure = AudioError(
            f"cannot be listed ({error.strerror or error}): check the folder and its permissions, or move it elsewhere",
            source=folder,
        )
        if on_error is None:
            raise failure from error
        on_error(failure)
        return []


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # nobody can say what it is; if it has the name of a recording, whoever opens it says why
        return False


def _segments(
    source: AudioClip | str | os.PathLike[str],
    policy: AccessPolicy,
    lengths: tuple[float, float, float],
    on_error: Callable[[AudioError], Any] | None,
) -> Iterator[AudioClip]:
    if isinstance(source, AudioClip):
        yield from _cut(source, policy, lengths)
    else:
        for path in audio_files(source, on_error):
            try:
                # `audio:x.wav` in the current folder is a file's name here, not a reference.
                named = f"./{path}" if str(path).startswith(references.SCHEME) else path
                yield from _cut(AudioClip(named), policy, lengths)
            except AudioError as error:
                if on_error is None:
                    raise
                on_error(error)


def _cut(clip: AudioClip, policy: AccessPolicy, lengths: tuple[float, float, float]) -> Iterator[AudioClip]:
    extent = measure(clip, policy, whole=True)
    # In whole microseconds, which add up exactly: at most half a frame at the highest rate, and short in writing.
    first, last = (round(1e6 * frame / extent.rate) for frame in (extent.start, extent.stop))
    length, hop, shortest = (round(1e6 * float(seconds)) for seconds in lengths)
    # Of a rest as short as the header may be wrong by, nothing might be heard.
    shortest = max(shortest, round(1e6 * (TOLERANCE_SECONDS + extent.slack_seconds)))
    for start in itertools.count(first, hop):
        if start + length >= last or last - (start + hop) < shortest:
            yield replace(clip, start_seconds=start / 1e6, end_seconds=last / 1e6)
            return
        yield replace(clip, start_seconds=start / 1e6, end_seconds=(start + length) / 1e6)
