"""`AudioReader`: recordings as documents, by path and digest; nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_index.core.readers.base import BasePydanticReader
from llama_index.core.schema import Document, MediaResource, MetadataMode
from pydantic import ConfigDict

from ..audio.access import AccessPolicy, file_digest
from ..audio.decoding import measure
from ..clips import AudioClip
from ..errors import InputError
from .nodes import DIGEST_KEY, PATH_KEY, check_metadata, unparsed


class AudioDocument(Document):
    """A recording that `AudioReader` has opened, to be made nodes of by `AudioNodeParser`.

    A text splitter that got it would make a node of its metadata and leave the audio out; it gets an error instead.
    It stores itself as LlamaIndex's own `Document`.
    """

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """The caption with metadata; there is none to be embedded."""
        if metadata_mode == MetadataMode.EMBED:
            raise unparsed(self)
        return super().get_content(metadata_mode)

    def get_metadata_str(self, mode: MetadataMode = MetadataMode.ALL) -> str:
        """The metadata as text; there is none to be embedded."""
        if mode == MetadataMode.EMBED:
            raise unparsed(self)
        return super().get_metadata_str(mode)


class AudioReader(BasePydanticReader):
    """Reads a recording into one document, for `SimpleDirectoryReader(file_extractor={".flac": AudioReader()})`.

    The document's id follows from its absolute path, so that a recording is updated and not added when it is read
    again, and its metadata hold a digest of the file, so that it counts as changed when the recording has.

    `SimpleDirectoryReader` prints and skips what a reader cannot read, unless it is told `raise_on_error=True`.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def class_name(cls) -> str:
        """Stable, for dumps."""
        return "AudioReader"

    # The base takes any arguments; here none is ignored.
    def lazy_load_data(
        self, file: str | os.PathLike[str], extra_info: Mapping[str, Any] | None = None, *, fs: Any = None
    ) -> Iterable[Document]:
        """One document; its header has been read, its samples have not.

        Args:
            file: a path.
            extra_info: metadata: flat, strings and numbers, as a link to the recording; not times, which would cut it.
            fs: a file system that is not this machine's own is refused.

        Raises:
            InputError: not a path, a remote file system, or `extra_info` under keys that are set here.
            AudioError: the file cannot be opened as audio.
        """
        if fs is not None:
            raise InputError("remote file systems are not read: download the recordings first", source=str(file))
        path = AudioClip(file).path
        if path is None:
            raise InputError(f"AudioReader reads files by path, got {type(file).__name__}: write it to a file first")
        path = str(Path(path).absolute())
        check_metadata(extra_info, path)
        clip = AudioClip(path)
        measure(clip, AccessPolicy(), whole=True)
        metadata = {PATH_KEY: path, **(extra_info or {}), DIGEST_KEY: file_digest(path)}
        yield AudioDocument(
            id_=clip.id,
            audio_resource=MediaResource(path=Path(path)),
            text_resource=MediaResource(text=""),
            extra_info=metadata,
            excluded_embed_metadata_keys=[DIGEST_KEY],
            excluded_llm_metadata_keys=[DIGEST_KEY],
        )
