"""Recordings as LangChain documents: one for each segment, with a reference for its content and its times beside it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob

from ..audio.access import bytes_digest, file_digest
from ..audio.mime_types import MIME_TYPES
from ..audio.segmenting import segment
from ..clips import AudioClip
from ..errors import AudioError, InputError

Transcribe = Callable[[AudioClip], str]

# Made for this purpose and never to change: keys in users' stores are derived from it.
_NAMESPACE = uuid.UUID("0d1c5b0e-62a4-5f0b-8a3e-1c7d9a54f2b6")


class AudioLoader(BaseLoader):
    """Loads a recording, or a folder of them, as one document for each segment.

    A document's `page_content` is a reference with a digest of the file, so that any store takes it and a changed file
    is noticed. Its metadata are flat: "source" (the path), "start_seconds", "end_seconds", "mime_type" and
    "transcript", "" if there is none. Its `id` is None. Only headers and, for the digest, bytes are read; nothing is
    decoded.

    Example:
        >>> store.add_documents(AudioLoader("calls", segment_seconds=20, hop_seconds=10).load())

    Args:
        path: of a file or folder; a folder is walked with its subfolders.
        segment_seconds: length of a segment.
        hop_seconds: from the beginning of one segment to that of the next; `segment_seconds` if None.
        min_seconds: the shortest rest that is a segment of its own.
        transcribe: makes the transcript of a segment, which is handed to it as a clip.
        on_error: called with the error of each recording in a folder that cannot be read; if None, it is raised.

    Raises:
        InputError: lengths that are not more than 0, a hop that would leave gaps, or arguments of another type.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        segment_seconds: float = 30.0,
        hop_seconds: float | None = None,
        min_seconds: float = 1.0,
        transcribe: Transcribe | None = None,
        on_error: Callable[[AudioError], Any] | None = None,
    ) -> None:
        if isinstance(path, AudioClip):
            raise InputError("AudioLoader takes a file or a folder: for a clip, Document(clip.reference()) is enough")
        self._cut = partial(
            segment,
            path,
            segment_seconds=segment_seconds,
            hop_seconds=hop_seconds,
            min_seconds=min_seconds,
            on_error=on_error,
        )
        self._cut()  # arguments are checked now, and nothing is read
        self._transcribe = _checked(transcribe)
        self._on_error = on_error

    def lazy_load(self) -> Iterator[Document]:
        """The documents, one after the other, in the order of names and times.

        Yields:
            Documents; nothing is read ahead of them.

        Raises:
            AudioError: a recording cannot be read, and there is no `on_error`.
        """
        yield from _documents(self._cut(), self._transcribe, on_error=self._on_error)

    def load_and_split(self, text_splitter: Any = None) -> list[Document]:
        """`load`: recordings are cut by `segment_seconds`, and a reference must not be cut.

        Raises:
            InputError: a text splitter was given.
        """
        if text_splitter is not None:
            raise InputError(
                "a text splitter would cut references in two: shorten segment_seconds, or split other documents only"
            )
        return self.load()


class AudioBlobParser(BaseBlobParser):
    """Parses blobs that are recordings, as `AudioLoader` does, for LangChain's `GenericLoader`.

    A blob's own metadata are kept beside those of `AudioLoader`. Where both have a name, that of `AudioLoader` counts,
    but for "source", which is the blob's. The "mime_type" is by the path's ending, as there, since what Python guesses
    for a blob depends on the machine.

    Args:
        segment_seconds: as for `AudioLoader`; so are `hop_seconds`, `min_seconds` and `transcribe`.
        on_error: called with the error of each recording that cannot be read; if None, it is raised.
    """

    def __init__(
        self,
        *,
        segment_seconds: float = 30.0,
        hop_seconds: float | None = None,
        min_seconds: float = 1.0,
        transcribe: Transcribe | None = None,
        on_error: Callable[[AudioError], Any] | None = None,
    ) -> None:
        self._cut = partial(segment, segment_seconds=segment_seconds, hop_seconds=hop_seconds, min_seconds=min_seconds)
        self._cut(".", on_error=on_error)  # arguments are checked now, and nothing is read
        self._transcribe = _checked(transcribe)
        self._on_error = on_error

    def lazy_parse(self, blob: Blob) -> Iterator[Document]:
        """The documents of one recording, in the order of time.

        Yields:
            Documents whose references lead to the blob's path.

        Raises:
            InputError: the blob has no path, or its bytes are not those of the file there.
            AudioError: the recording cannot be read, and there is no `on_error`.
        """
        if blob.path is None:
            raise InputError(
                "the blob has no path, and a reference must lead to a file: write its bytes to one and parse "
                "Blob.from_path(path)",
                source=blob.source,
            )
        clip = AudioClip(blob.path)
        source = {"source": blob.metadata["source"]} if blob.metadata.get("source") else {}
        try:
            if blob.data is not None and bytes_digest(blob.as_bytes()) != file_digest(os.fspath(blob.path)):
                raise InputError(
                    "the blob's bytes are not those of the file at its path, to which references would lead: write "
                    "them to a file and parse Blob.from_path(path)",
                    source=clip.name,
                )
            clips = list(self._cut(clip))
        except AudioError as error:
            if self._on_error is None:
                raise
            self._on_error(error)
            return
        for document in _documents(iter(clips), self._transcribe, on_error=self._on_error):
            yield document.model_copy(update={"metadata": blob.metadata | document.metadata | source})


def audio_key_encoder(document: Document) -> str:
    """The key of a document for `langchain_core.indexing.index(key_encoder=…)`: a UUID, which every store takes.

    It is made from content and metadata, and with the digest in a reference from the recording's bytes.

    Raises:
        InputError: metadata that are not JSON.
    """
    try:
        said = json.dumps([document.page_content, document.metadata], sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata must be JSON to make a key from ({error}): turn such values into texts",
            source=document.page_content,
        ) from error
    return str(uuid.uuid5(_NAMESPACE, said))


def _checked(transcribe: Any) -> Transcribe | None:
    if transcribe is not None and not callable(transcribe):
        raise InputError(f"transcribe must be a function of one clip, got {transcribe!r}")
    chosen: Transcribe | None = transcribe
    return chosen


def _documents(
    clips: Iterator[AudioClip],
    transcribe: Transcribe | None,
    *,
    on_error: Callable[[AudioError], Any] | None = None,
) -> Iterator[Document]:
    path = digest = None
    for clip in clips:
        if clip.path != path:
            # Once for all segments of a file, which are of one state of it then, however young it is.
            path = clip.path
            try:
                digest = file_digest(str(path))
            except AudioError as error:  # gone since its header was read
                digest = None
                if on_error is None:
                    raise
                on_error(error)
        if digest is not None:
            yield _document(replace(clip, digest=digest), transcribe)


def _document(clip: AudioClip, transcribe: Transcribe | None) -> Document:
    metadata = {
        "source": clip.path,
        "start_seconds": clip.start_seconds,
        "end_seconds": clip.end_seconds,
        "mime_type": MIME_TYPES.get(Path(str(clip.path)).suffix.lower(), "application/octet-stream"),
        "transcript": "" if transcribe is None else _transcript(clip, transcribe),
    }
    return Document(page_content=clip.reference(), metadata=metadata)


def _transcript(clip: AudioClip, transcribe: Transcribe) -> str:
    try:
        text = transcribe(clip)
    except Exception as error:
        error.add_note(f"while transcribing {clip.name}")
        raise
    if not isinstance(text, str):
        raise InputError(f"transcribe must return a str, got {type(text).__name__}", source=clip.name)
    return text
