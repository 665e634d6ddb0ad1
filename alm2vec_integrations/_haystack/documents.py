"""Documents as items to embed: which are audio, where their recordings are, and how an error names them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haystack import Document

from ..clips import AudioClip
from ..errors import AudioAccessError, InputError
from ..inputs import AudioText, Item, kind_of
from . import mime_types

DIGEST = "audio_digest"
"""Meta key: the first 16 hex digits of the SHA-256 of the recording's bytes."""

START, END = "start_seconds", "end_seconds"
"""Meta keys: which part of the recording a document is."""

PROVENANCE = tuple(
    f"alm2vec_{name}" for name in ("kind", "task", "instruction", "question", "model", "revision", "error")
)
"""Meta keys that say how a vector came about, or why there is none."""


@dataclass(frozen=True)
class DocumentReader:
    """How documents are read.

    Attributes:
        file_path_meta_field: the meta key that holds the path of a recording.
        root_path: the folder that stored paths are relative to and may point into; none are opened if None.
        prefix: before a text.
        suffix: after it.
        meta_fields_to_embed: meta keys whose values are put before a text.
        embedding_separator: between those and the text.

    Raises:
        InputError: an attribute of another type.
    """

    file_path_meta_field: str = "file_path"
    root_path: str | None = None
    prefix: str = ""
    suffix: str = ""
    meta_fields_to_embed: list[str] = field(default_factory=list)
    embedding_separator: str = "\n"

    def __post_init__(self) -> None:
        for name in ("file_path_meta_field", "prefix", "suffix", "embedding_separator"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be a str, got {getattr(self, name)!r}")
        keys = self.meta_fields_to_embed
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise InputError(f"meta_fields_to_embed must be a list of meta keys, got {keys!r}")

    def is_audio(self, document: Document) -> bool:
        """Whether a document is a recording.

        It is if its meta says so, whatever its content; or if it has no content but an audio blob or a path.
        """
        if mime_types.is_audio(document.meta.get("mime_type")):
            return True
        if document.content is not None:
            return False
        if document.blob is not None and document.blob.mime_type is not None:
            return mime_types.is_audio(document.blob.mime_type)
        return document.meta.get(self.file_path_meta_field) is not None

    def item(self, document: Document, question: str | None = None) -> Item:
        """A document as what is embedded.

        Args:
            document: its content is not looked at if it is audio.
            question: paired with audio.

        Raises:
            InputError: there is nothing to embed, or no recording where the document says.
            AudioAccessError: its path may not be opened.
        """
        if self.is_audio(document):
            clip = self.clip(document)
            return AudioText(question, clip) if question else clip
        values = [document.meta.get(key) for key in self.meta_fields_to_embed]
        parts = [str(value) for value in values if value is not None]
        if document.content is None and document.blob is not None and not parts:
            raise InputError(
                f"has no text, and its blob is of type {document.blob.mime_type!r}: set mime_type to audio/… if it is "
                "a recording, or leave the document out"
            )
        if not any(part.strip() for part in (*parts, document.content or "")):
            raise InputError("has neither text nor audio: there is nothing to embed, so leave it out")
        return self.prefix + self.embedding_separator.join([*parts, document.content or ""]) + self.suffix

    def clip(self, document: Document) -> AudioClip:
        """The recording, or the part of one, that an audio document is.

        Raises:
            InputError: the document says neither bytes nor a path, or times that are none.
            AudioAccessError: there is no `root_path`.
        """
        meta = document.meta
        part: dict[str, Any] = {
            "start_seconds": meta.get(START),
            "end_seconds": meta.get(END),
            "digest": meta.get(DIGEST),
        }
        path = meta.get(self.file_path_meta_field)
        if document.blob is not None:
            return AudioClip(document.blob.data, label=str(path) if path else "its blob", **part)
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise InputError(
                f"is audio, but has no blob, and meta[{self.file_path_meta_field!r}] is {path!r}: set one of them"
            )
        clip = AudioClip(path, is_reference=True, **part)  # refuses URLs
        if self.root_path is None:
            raise AudioAccessError(
                "paths that documents hold are opened only inside root_path, and none is given: pass the folder",
                source=clip.name,
            )
        return AudioClip(str(Path(self.root_path, path)), is_reference=True, **part)


def check_documents(documents: Any, component: str, instead: str) -> None:
    """Raise unless `documents` is a list of documents, as Haystack's own components do.

    Raises:
        TypeError: it is not; `instead` says what to use.
    """
    if isinstance(documents, list):
        wrong = [type(one).__name__ for one in documents if not isinstance(one, Document)]
        if not wrong:
            return
        raise TypeError(f"{component} expects a list of Documents as input, got a {wrong[0]} among them. {instead}")
    raise TypeError(f"{component} expects a list of Documents as input, got {type(documents).__name__}. {instead}")


def blame(error: InputError, index: int, document: Document) -> InputError:
    """The error in Haystack's words: of which document, and by the name that folders have here."""
    source = f"document {document.id}" + ("" if error.source is None else f", {error.source}")
    return type(error)(error.reason.replace("allowed_audio_roots", "root_path"), index=index, source=source)


def with_provenance(meta: dict[str, Any], item: Item | None, said: dict[str, str | None]) -> dict[str, Any]:
    """A copy of `meta` that says how the vector came about, in flat keys, in place of what those keys said.

    Args:
        meta: of the document.
        item: what was embedded, None if nothing was.
        said: by the ends of the keys.
    """
    kept = {key: value for key, value in meta.items() if key not in PROVENANCE}
    kind = None if item is None else kind_of(item)
    made = {"kind": kind, "question": item.text if isinstance(item, AudioText) else None, **said}
    # Some stores refuse None, or drop it.
    return kept | {f"alm2vec_{name}": value for name, value in made.items() if value is not None}
