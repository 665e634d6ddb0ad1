"""`AudioNode`: a recording, or a part of one, as a node that stock indexes embed and stock stores bring back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from llama_index.core.schema import BaseNode, Document, MediaResource, MetadataMode, Node
from pydantic import ConfigDict

from ..audio.access import file_digest
from ..clips import AudioClip
from ..errors import InputError
from ..inputs import as_clip
from .item_text import REFERENCE_KEY, ItemText, clip_in, marked
from .settings import Audio

DIGEST_KEY = "audio_digest"
"""Metadata: of the file's bytes. It keeps caches and docstores from taking one recording for another, which go by
metadata and path."""

START_KEY, END_KEY = "start_seconds", "end_seconds"
"""Metadata: the part of the recording, where it is a part."""

PATH_KEY = "file_path"
"""Metadata: LlamaIndex's own name for the path."""

URL_KEY = "audio_url"
"""Metadata: where the recording is on the web, as a string; nothing is fetched from there."""

_FLAT = (str, int, float, type(None))  # as LlamaIndex has it

# Made for this purpose and never to change: ids in users' stores are derived from it.
_NAMESPACE = uuid.UUID("b0f7a9c4-33a1-5d0e-8d3c-5f2f0c1f8e64")


class AudioNode(Node):
    """A recording, or a part of one, with a caption if there is one.

    It stores itself as LlamaIndex's own `Node`, the one kind that all stores bring back with its audio; what comes
    back is a plain `Node`, which `ALM2VecEmbedding` and `ALM2VecRerank` take as well. The part is in the metadata
    ("start_seconds", "end_seconds"), and so are a digest of the file ("audio_digest"), taken now if not given, and a
    reference ("audio_reference"), by which the embedding knows the recording when LlamaIndex hands it over as a text.

    Args:
        audio_resource: `MediaResource(path=…)`; the path is made absolute. A `url` beside it moves into the metadata
            ("audio_url"), as a string: LlamaIndex's docstores fail on its own kind.
        text_resource: a caption or transcript: for LLMs without ears, and for keyword search; not embedded.
        data: the other fields of `Node`.

    Raises:
        InputError: no audio, or audio as bytes or as a URL alone, which stores would lose or fail on; or templates
            that lose the reference.
        AudioError: the file cannot be read.
        ValidationError: no such field.
    """

    model_config = ConfigDict(extra="forbid")

    def __init__(self, **data: Any) -> None:
        data.pop("class_name", None)  # of a dump
        super().__init__(**data)
        self.audio_resource, link = url_apart(self)
        self.metadata = {key: value for key, value in self.metadata.items() if key != REFERENCE_KEY} | link
        clip = clip_of_node(self)
        if clip is None or clip.path is None or self.audio_resource is None:
            raise InputError("AudioNode needs audio: pass audio_resource=MediaResource(path=…), or use from_clip")
        path = Path(clip.path).absolute()
        self.audio_resource = self.audio_resource.model_copy(update={"path": path})
        if self.text_resource is None:
            self.text_resource = MediaResource(text="")  # without one, some stores fail at query time
        if clip.digest is None:
            self.metadata = {**self.metadata, DIGEST_KEY: file_digest(str(path))}
        clip = replace(clip, source=str(path), digest=self.metadata[DIGEST_KEY])
        self.metadata = {**self.metadata, REFERENCE_KEY: marked(clip)}
        embedded = [key for key in self.excluded_embed_metadata_keys if key != REFERENCE_KEY]
        self.excluded_embed_metadata_keys = with_keys(embedded, DIGEST_KEY)
        self.excluded_llm_metadata_keys = with_keys(self.excluded_llm_metadata_keys, DIGEST_KEY, REFERENCE_KEY)
        if clip_in(super().get_content(MetadataMode.EMBED)) != clip:
            raise InputError(
                f"from a store it would be embedded as another recording, or as words: its templates must hold "
                f"{{key}}, {{value}} and {{metadata_str}}, and no metadata before {REFERENCE_KEY} another reference",
                source=clip.name,
            )

    @classmethod
    def from_clip(
        cls, clip: Audio, *, caption: str = "", metadata: Mapping[str, Any] | None = None, **fields: Any
    ) -> Self:
        """The node of a clip.

        Args:
            clip: a path, or an `AudioClip` of one, with its times.
            caption: or transcript, in words.
            metadata: flat: strings and numbers, which all stores take; not the keys that are set here.
            fields: the other fields of `Node`; without `id_`, the id follows from path, times and bytes.

        Raises:
            InputError: the clip is no path's, or `metadata` says what only the clip may.
            AudioError: the file cannot be read.
        """
        clip = as_clip(clip)
        if clip.path is None:
            raise InputError("a node holds a path: write the recording to a file first", source=clip.name)
        path = str(Path(clip.path).absolute())
        digest = clip.digest or file_digest(path)
        if nested := sorted(str(key) for key, value in (metadata or {}).items() if not isinstance(value, _FLAT)):
            raise InputError(
                f"metadata must be strings and numbers, which all stores take: write {nested} as such", source=path
            )
        check_metadata(metadata, path)
        own = {PATH_KEY: path, **(metadata or {}), **part_metadata(clip), DIGEST_KEY: digest}
        fields.setdefault("id_", node_id("", AudioClip(path), own))
        return cls(
            audio_resource=MediaResource(path=Path(path)),
            text_resource=MediaResource(text=caption),
            metadata=own,
            **fields,
        )

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """The caption with metadata; for `MetadataMode.EMBED` the audio, as a text that carries it."""
        return to_embed(self) if metadata_mode == MetadataMode.EMBED else super().get_content(metadata_mode)


def has_audio(node: BaseNode) -> bool:
    """Whether a node holds audio."""
    return isinstance(node, Node) and node.audio_resource is not None


def url_apart(node: Node) -> tuple[MediaResource | None, dict[str, str]]:
    """A node's audio without the URL that stands beside its path, and that URL as metadata.

    Raises:
        InputError: the metadata name another.
    """
    resource = node.audio_resource
    if resource is None or resource.path is None or resource.url is None:
        return resource, {}
    written = node.metadata.get(URL_KEY) or str(resource.url)
    try:
        is_same = MediaResource.model_validate({"url": written}).url == resource.url
    except ValueError:  # it is no URL
        is_same = False
    if not is_same:
        raise InputError(
            f"its audio_resource has the url {resource.url}, its metadata the {URL_KEY} {written!r}",
            source=str(resource.path),
        )
    return resource.model_copy(update={"url": None}), {URL_KEY: written}


def clip_of_node(node: BaseNode) -> AudioClip | None:
    """The clip that a node stands for, as a reference; None if it holds no audio.

    Raises:
        InputError: its audio is bytes or a URL, or its times are none.
    """
    if not isinstance(node, Node) or node.audio_resource is None:
        return None
    resource, source = node.audio_resource, f"node {node.node_id}"
    if resource.url is not None:
        raise InputError(
            "URLs are not opened, and LlamaIndex's docstores fail on them: download the recording, pass its path, and "
            f"keep the link in the metadata, as a str: {URL_KEY!r}",
            source=source,
        )
    if resource.data is not None:
        raise InputError("LlamaIndex does not store bytes: write them to a file and pass its path", source=source)
    if resource.path is None:
        raise InputError("its audio_resource has no path: pass MediaResource(path=…)", source=source)
    clip = AudioClip(
        str(resource.path),
        start_seconds=node.metadata.get(START_KEY),
        end_seconds=node.metadata.get(END_KEY),
        digest=node.metadata.get(DIGEST_KEY),
        is_reference=True,  # what decides whether it may be opened is allowed_audio_roots, not a store
    )
    if (reference := node.metadata.get(REFERENCE_KEY)) is not None and (
        clip.digest is None or marked(clip) != reference
    ):
        raise InputError(
            f"its {REFERENCE_KEY} is of another recording than its path, times and digest: make a node of what was "
            "changed, AudioNode.from_clip(…)",
            source=source,
        )
    return clip


def embedding_text(node: BaseNode) -> str:
    """What to embed of a node: its audio if it has any, else its text with metadata.

    Raises:
        InputError: an audio document that no `AudioNodeParser` has made nodes of, which stores would bring back
            without its audio; and as `clip_of_node`.
    """
    clip = clip_of_node(node)
    if clip is None:
        return node.get_content(metadata_mode=MetadataMode.EMBED)
    if isinstance(node, Document):
        raise unparsed(node)
    caption = node.get_content(metadata_mode=MetadataMode.NONE)
    return ItemText(clip, caption=caption)


def to_embed(node: BaseNode) -> str:
    """`embedding_text`, of a node that LlamaIndex's caches tell from others.

    Raises:
        InputError: as there, and as `check_recognisable`.
    """
    if (clip := clip_of_node(node)) is not None and not isinstance(node, Document):
        check_recognisable(node, clip)
    return embedding_text(node)


def check_recognisable(node: BaseNode, clip: AudioClip) -> None:
    """Refuse audio that LlamaIndex's caches, which go by a node's content, would take for other audio.

    A cache that finds something asks nobody, so this is said when there is something to be put into it.

    Raises:
        InputError: the content does not hold the digest of the recording.
    """
    if clip.digest is None or clip.digest not in node.get_content(metadata_mode=MetadataMode.ALL):
        raise InputError(
            f"nothing in its content tells {clip.name} from other recordings, and LlamaIndex's caches go by that: "
            "read documents with AudioReader and make nodes by AudioNode.from_clip, which put a digest into the "
            "metadata",
            source=f"node {node.node_id}",
        )


def check_metadata(metadata: Mapping[str, Any] | None, source: str) -> None:
    """Refuse metadata of a caller's under the keys by which a node says what it is of."""
    if taken := sorted({START_KEY, END_KEY, DIGEST_KEY, REFERENCE_KEY} & set(metadata or ())):
        raise InputError(
            f"metadata cannot hold {taken}, which say what part of which recording this is: pass times as "
            "AudioClip(path, start_seconds=…) to AudioNode.from_clip, and name other things otherwise",
            source=source,
        )


def unparsed(document: Document) -> InputError:
    """The error for an audio document where nodes belong."""
    path = document.audio_resource.path if document.audio_resource is not None else None
    return InputError(
        "an audio document was taken for text or for a node: put AudioNodeParser() first into the transformations",
        source=f"document {document.node_id}" if path is None else str(path),
    )


def part_metadata(clip: AudioClip) -> dict[str, float]:
    """The clip's times; stores take no None, so a time that is not set is left out."""
    times = {START_KEY: clip.start_seconds, END_KEY: clip.end_seconds}
    return {key: value for key, value in times.items() if value is not None}


def node_id(document_id: str, clip: AudioClip, metadata: Mapping[str, Any]) -> str:
    """A UUID that is the same for the same part of the same bytes in the same document, and for no other.

    A store that keeps what it has under a known id thus keeps no vector of other bytes.
    """
    part = (metadata.get(START_KEY), metadata.get(END_KEY), metadata[DIGEST_KEY])
    return str(uuid.uuid5(_NAMESPACE, repr((document_id, clip.path, *part))))


def with_keys(keys: list[str], *more: str) -> list[str]:
    """`keys` and `more`, which may be there already."""
    return [*keys, *(key for key in more if key not in keys)]
