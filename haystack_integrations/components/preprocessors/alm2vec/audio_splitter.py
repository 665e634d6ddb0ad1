"""`AudioSplitter`: long recordings as segments with times."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict, logging

from alm2vec_integrations import arguments, segment
from alm2vec_integrations._haystack.documents import END, START, DocumentReader, blame, check_documents
from alm2vec_integrations._haystack.model import as_path
from alm2vec_integrations.audio.limits import TRAINED_SECONDS
from alm2vec_integrations.clips import AudioClip
from alm2vec_integrations.errors import InputError

logger = logging.getLogger(__name__)

_SILENCE = AudioClip(b"\0", label="none")


@component
class AudioSplitter:
    """Cuts audio documents into segments of a bounded length, by times alone: the embedder reads each part.

    A segment's meta is that of its document, with `source_id` (the document's id), `split_id` (0, 1, …),
    `start_seconds` and `end_seconds`, as `SentenceWindowRetriever` reads them. Its id is the same in every run.
    Documents that are not audio are handed on as they are.

    Args:
        segment_seconds: length of a segment; by default the longest that the model was trained on.
        hop_seconds: from the beginning of one segment to that of the next; `segment_seconds` if None, less for overlap.
        min_seconds: the shortest rest that is a segment of its own; a shorter one lengthens the segment before it.
        file_path_meta_field: the meta key that holds the path of a recording.
        root_path: the folder that those paths are relative to and must lie in; no path is opened if None.
        raise_on_failure: raise the error of the first document whose recording cannot be read. If False, such
            documents are left out with a warning.

    Raises:
        InputError: an argument has the wrong type, or lengths that do not fit together.
    """

    def __init__(
        self,
        *,
        segment_seconds: float = TRAINED_SECONDS,
        hop_seconds: float | None = None,
        min_seconds: float = 1.0,
        file_path_meta_field: str = "file_path",
        root_path: str | os.PathLike[str] | None = None,
        raise_on_failure: bool = True,
    ) -> None:
        self.segment_seconds = segment_seconds
        self.hop_seconds = hop_seconds
        self.min_seconds = min_seconds
        self.file_path_meta_field = file_path_meta_field
        self.root_path = as_path("root_path", root_path)
        self.raise_on_failure = arguments.flag("raise_on_failure", raise_on_failure)
        self._reader = DocumentReader(file_path_meta_field=self.file_path_meta_field, root_path=self.root_path)
        self._segments(_SILENCE)  # looks at the lengths, and at nothing else before it is asked for a segment

    def to_dict(self) -> dict[str, Any]:
        """The component as basic types."""
        return default_to_dict(
            self,
            segment_seconds=self.segment_seconds,
            hop_seconds=self.hop_seconds,
            min_seconds=self.min_seconds,
            file_path_meta_field=self.file_path_meta_field,
            root_path=self.root_path,
            raise_on_failure=self.raise_on_failure,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AudioSplitter:
        """The component that `to_dict` wrote down."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Cut documents; only headers are read.

        Args:
            documents: they stay as they are. One that is a part of a recording already is cut within its times.

        Returns:
            `documents`, the segments of each in place of it.

        Raises:
            TypeError: not a list of documents.
            AudioError: a recording cannot be read, if `raise_on_failure`; it names the document.
            AudioAccessError: a path outside `root_path`, the same.
        """
        check_documents(documents, "AudioSplitter", "In case you want to split files, convert them first.")
        found: list[Document] = []
        for index, document in enumerate(documents):
            if not self._reader.is_audio(document):
                found.append(document)
                continue
            try:
                found += self._cut(document, self._reader.clip(document))
            except InputError as error:
                named = blame(error, index, document)
                if self.raise_on_failure:
                    raise named from error
                logger.warning("Not split, and left out: {error}", error=str(named))
        return {"documents": found}

    def _segments(self, clip: AudioClip) -> Iterator[AudioClip]:
        return segment(
            clip,
            segment_seconds=self.segment_seconds,
            hop_seconds=self.hop_seconds,
            min_seconds=self.min_seconds,
            allowed_audio_roots=None if self.root_path is None else [self.root_path],
        )

    def _cut(self, document: Document, clip: AudioClip) -> list[Document]:
        return [
            replace(
                document,
                id=_id(document, part),
                meta={
                    **document.meta,
                    "source_id": document.id,
                    "split_id": number,
                    START: part.start_seconds,
                    END: part.end_seconds,
                },
                embedding=None,
            )
            for number, part in enumerate(self._segments(clip))
        ]


def _id(document: Document, part: AudioClip) -> str:
    return hashlib.sha256(f"{document.id} {part.start_seconds!r} {part.end_seconds!r}".encode()).hexdigest()
