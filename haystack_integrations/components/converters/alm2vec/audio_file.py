"""`AudioFileToDocument`: recordings as documents that point to them."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date, time, timedelta
from enum import Enum
from numbers import Number
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from haystack import Document, component, default_from_dict, default_to_dict, logging
from haystack.components.converters.utils import normalize_metadata
from haystack.dataclasses import ByteStream

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack import mime_types
from alm2vec_integrations._haystack.documents import DIGEST
from alm2vec_integrations._haystack.model import as_path
from alm2vec_integrations.audio.access import AccessPolicy, bytes_digest, file_digest
from alm2vec_integrations.audio.decoding import measure
from alm2vec_integrations.clips import AudioClip
from alm2vec_integrations.errors import AudioError, InputError

logger = logging.getLogger(__name__)


@component
class AudioFileToDocument:
    """Makes a document of every recording, without decoding it.

    A document holds the path, not the bytes, which stores would keep and hand out with every hit; of a recording
    without a path it holds the bytes. Its meta has `file_path` (absolute, so that files of one name in two folders are
    two documents), `mime_type`, `audio_digest` (of the bytes, so that a file recorded anew is another document, and
    one that changed since is noticed) and `duration_seconds`.

    Args:
        store_blob: keep the bytes of files too.
        content_placeholder: the `content` of every document, for stores that refuse documents without; it is not
            embedded.
        root_path: the folder in which files are looked at that the meta of bytes names; none are if None. Sources that
            are paths are opened wherever they are, as the caller's own.
        raise_on_failure: raise the error of the first source that cannot be read, rather than skip it with a warning.

    Raises:
        InputError: an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        store_blob: bool = False,
        content_placeholder: str | None = None,
        root_path: str | os.PathLike[str] | None = None,
        raise_on_failure: bool = False,
    ) -> None:
        self.store_blob = arguments.flag("store_blob", store_blob)
        self.content_placeholder = arguments.instruction("content_placeholder", content_placeholder)
        self.root_path = as_path("root_path", root_path)
        self._policy = AccessPolicy(self.root_path)
        self.raise_on_failure = arguments.flag("raise_on_failure", raise_on_failure)

    def to_dict(self) -> dict[str, Any]:
        """The component as basic types."""
        return default_to_dict(
            self,
            store_blob=self.store_blob,
            content_placeholder=self.content_placeholder,
            root_path=self.root_path,
            raise_on_failure=self.raise_on_failure,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AudioFileToDocument:
        """The component that `to_dict` wrote down."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, sources: list[str | Path | ByteStream], meta: dict[str, Any] | list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Convert recordings.

        Args:
            sources: paths and bytes, mixed as they come. URLs are not opened.
            meta: for all documents, or one for each source; over the meta of a `ByteStream`, under what is found out.

        Returns:
            `documents`, one for each source that can be read, in order.

        Raises:
            TypeError: a source, or the meta of one, of another type.
            ValueError: `meta` of another length.
            AudioError: a source that cannot be read, if `raise_on_failure`.
        """
        if not isinstance(sources, list):
            raise TypeError(f"AudioFileToDocument expects a list of sources, got {type(sources).__name__}")
        documents = []
        for index, (source, own) in enumerate(zip(sources, normalize_metadata(meta, len(sources)), strict=True)):
            if not isinstance(source, (str, Path, ByteStream)):
                raise TypeError(f"a source is a path or a ByteStream, got {type(source).__name__} at {index}")
            if not isinstance(own, dict):
                raise TypeError(f"the meta of a source is a dict, got {type(own).__name__} at {index}")
            try:
                documents.append(self._convert(source, own))
            except InputError as error:
                if self.raise_on_failure:
                    raise
                logger.warning("Not converted, and skipped: {error}", error=str(error))
        return {"documents": documents}

    def _convert(self, source: str | Path | ByteStream, meta: dict[str, Any]) -> Document:
        if isinstance(source, ByteStream):
            return self._of_bytes(source, meta)
        clip = AudioClip(source)  # refuses URLs
        path = str(Path(str(clip.path)).absolute())
        found = {"file_path": path, "mime_type": mime_types.of_path(path), **_looked_at(AudioClip(path))}
        data = _read(path) if self.store_blob else None
        return self._document(data, {**meta, **found})

    def _of_bytes(self, source: ByteStream, meta: dict[str, Any]) -> Document:
        meta = {**source.meta, **meta}
        named = source.meta.get("file_path")
        clip = AudioClip(source.data, label=str(named) if named else None)
        mime_type = mime_types.of_blob(source.mime_type)
        if mime_type == mime_types.UNNAMED and named:
            mime_type = mime_types.of_path(str(named))
        found = {"mime_type": mime_type, **_looked_at(clip)}
        # FileTypeRouter reads files whose meta it is given, and says where they are.
        if not isinstance(named, str) or not self._holds(named, found[DIGEST]):
            return self._document(source.data, {**meta, **found})
        found["file_path"] = str(Path(named).absolute())
        return self._document(source.data if self.store_blob else None, {**meta, **found})

    def _holds(self, path: str, digest: str) -> bool:
        """Whether a file that meta names may be looked at, and holds these bytes; if not, they stand for themselves."""
        try:
            clip = AudioClip(str(Path(path).absolute()), is_reference=True, digest=digest)
            with self._policy.open(clip, check_digest=True):
                return True
        except InputError:
            return False

    def _document(self, data: bytes | None, meta: dict[str, Any]) -> Document:
        blob = None if data is None else ByteStream(data, mime_type=meta["mime_type"])
        return Document(id=_id(meta), content=self.content_placeholder, blob=blob, meta=meta)


def _id(meta: dict[str, Any]) -> str:
    """Of a document. Haystack's own goes through all bytes, written out as text; the digest in meta stands for them.

    Raises:
        InputError: meta holds what reads otherwise in the next run.
    """
    try:
        told = json.dumps(meta, sort_keys=True, default=_as_text)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"its meta gives no id that lasts ({error}): let keys be texts, and values texts, numbers, dates, paths, "
            "and lists and dicts of these",
            source=str(meta.get("file_path", "bytes")),
        ) from error
    return hashlib.sha256(told.encode()).hexdigest()


def _as_text(value: Any) -> str:
    """A value whose text is the same in every run, as that of an object in general is not."""
    if isinstance(value, (date, time, timedelta, PurePath, UUID, Number, Enum, bytes)):
        return str(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def _looked_at(clip: AudioClip) -> dict[str, Any]:
    """What the header and the bytes say.

    Raises:
        AudioError: it is not audio, or cannot be read.
    """
    seconds = measure(clip, AccessPolicy(), whole=True).seconds
    digest = file_digest(clip.path) if clip.path is not None else bytes_digest(clip.source)
    return {DIGEST: digest, "duration_seconds": round(seconds, 6)}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}", source=path) from error
