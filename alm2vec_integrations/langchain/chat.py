"""What was found, for a chat model that hears: segments as audio in the message, each with a label in words."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.messages.content import AudioContentBlock, ContentBlock, create_audio_block, create_text_block

from ..audio.access import AccessPolicy
from ..audio.decoding import decode, wav_bytes
from ..clips import AudioClip
from ..errors import InputError

Roots = Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None


def to_audio_block(document: Document, *, allowed_audio_roots: Roots) -> AudioContentBlock:
    """A document's segment as a content block: 16 kHz mono PCM16 WAV, in base64.

    Chat models take no paths and refuse URLs of audio, so the bytes go along: 32 kB for each second, and a third more
    in base64.

    Args:
        document: its `page_content` is a reference, as `AudioLoader` makes it.
        allowed_audio_roots: folders that the reference may point into.

    Raises:
        InputError: the document is text, or half a reference.
        AudioAccessError: it points outside the roots, or the file has changed.
        AudioError: the recording cannot be read.
    """
    if not AudioClip.looks_like_reference(document.page_content):
        raise InputError(
            "the document is text, not a reference to a recording: to_audio_message takes both",
            source=repr(document.page_content[:60]),
        )
    return _block(AudioClip.from_reference(document.page_content), AccessPolicy(allowed_audio_roots))


def to_audio_message(text: str, documents: Sequence[Document], *, allowed_audio_roots: Roots) -> HumanMessage:
    """A message with a text, and after it every document under a label of its own.

    A label says the source and, of a recording, the times, by which an answer can name it; a recording follows as
    audio, a text as text.

    Args:
        text: the question or task.
        documents: references and texts, in this order.
        allowed_audio_roots: folders that references may point into.

    Raises:
        InputError: as `to_audio_block`, naming the place in `documents`; an empty text; or no list of documents.
        AudioAccessError: as `to_audio_block`.
        AudioError: as `to_audio_block`.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"the text of a message must be a non-empty str, got {text!r}")
    if isinstance(documents, (Document, str)) or not isinstance(documents, Iterable):
        raise InputError(f"documents must be a list of documents, got {type(documents).__name__}: wrap one in a list")
    policy = AccessPolicy(allowed_audio_roots)
    blocks: list[ContentBlock] = [create_text_block(text)]
    for index, document in enumerate(documents):
        try:
            blocks += _labelled(index + 1, document, policy)
        except InputError as error:
            raise error.at(index) from error
    return HumanMessage(content_blocks=blocks)


def _labelled(number: int, document: Document, policy: AccessPolicy) -> list[ContentBlock]:
    if not isinstance(document, Document):
        raise InputError(f"must be a Document, got {type(document).__name__}: wrap a text in Document(text)")
    if not AudioClip.looks_like_reference(document.page_content):
        source = document.metadata.get("source")
        label = f"[{number}]" if source is None else f"[{number}] {source}"
        return [create_text_block(f"{label}:\n{document.page_content}")]
    clip = AudioClip.from_reference(document.page_content)
    return [create_text_block(f"[{number}] {clip.name}:"), _block(clip, policy)]


def _block(clip: AudioClip, policy: AccessPolicy) -> AudioContentBlock:
    data = base64.b64encode(wav_bytes(decode(clip, policy))).decode("ascii")
    return create_audio_block(base64=data, mime_type="audio/wav")
