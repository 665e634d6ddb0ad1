"""What is looked for: words, a recording, or a recording with a question, from all the places where it may be said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator
from typing_extensions import TypedDict  # pydantic, which LangChain describes inputs with, takes no other before 3.12

from ..clips import AudioClip
from ..errors import InputError
from ..inputs import AudioText, Item, as_clip, check_item
from ..instructions import Task

Audio = AudioClip | str | os.PathLike[str]


class Query(TypedDict, total=False):
    """A query in parts: "text" or "audio" or both, and how it is meant.

    Attributes:
        text: words; beside audio, the question about it.
        audio: a clip, a path, or a reference, which is opened only inside the embeddings' `allowed_audio_roots`.
        question: the aspect to compare by: of audio, or which the text answers.
        instruction: for the query, in place of the embeddings' own.
    """

    text: str
    audio: Audio
    question: str
    instruction: str


QueryInput = str | Query
PARTS = tuple(Query.__annotations__)

# Looked at before pydantic would make a number of True.
Count = Annotated[int | None, BeforeValidator(lambda value, info: check_count(str(info.field_name), value))]


@dataclass(frozen=True)
class Asked:
    """A query once everything is known.

    Attributes:
        text: or None.
        clip: or None.
        question: the aspect; None where the text beside a clip is one already.
        instruction: or None.
    """

    text: str | None
    clip: AudioClip | None
    question: str | None
    instruction: str | None

    @property
    def plain(self) -> Item:
        """What was given, without the question."""
        if self.clip is None:
            return self.text or ""
        return self.clip if self.text is None else AudioText(self.text, self.clip)

    @property
    def item(self) -> Item:
        """What is embedded: a clip together with its question."""
        if self.clip is not None and self.question:
            return AudioText(self.question, self.clip)
        return self.plain

    @property
    def task(self) -> Task:
        """A query, but for the answer to a question: the model card embeds answers as documents."""
        return "document" if self.clip is None and self.question else "query"

    @property
    def placeholder(self) -> str:
        """What a store is given in the query's place: its words, for stores that search by words as well."""
        if self.text is not None:
            return self.text
        return self.question or f"a recording: {self.clip.name if self.clip else ''}"


def understand(
    query: QueryInput,
    *,
    text: str | None = None,
    audio: Audio | None = None,
    question: str | None = None,
    instruction: str | None = None,
    default_question: str | None = None,
    default_instruction: str | None = None,
) -> Asked:
    """Put a query together: the keywords of a call come before the parts of `query`, and those before the defaults.

    Args:
        query: a text, or a dict of `Query`.
        text: of the call; refused where `query` has its own.
        audio: of the call; refused where the dict has its own.
        question: of the call.
        instruction: of the call; "" is None here and everywhere.
        default_question: where neither has one, and no text stands beside audio.
        default_instruction: where neither has one.

    Raises:
        InputError: neither text nor audio, an unknown key, a part of another type, or audio with two questions.
    """
    parts = _parts(query)
    for name, given in (("text", text), ("audio", audio)):
        if given is not None:
            if name in parts:
                raise InputError(f"{name} was given twice, in the query and by keyword: leave out one")
            parts[name] = given
    text, clip = parts.get("text"), _clip(parts.get("audio"))
    if text is None and clip is None:
        raise InputError('the query has neither "text" nor "audio": give one of them, or both')
    if text is not None:
        text = _text(text)
    asked = _words("question", question) or _words("question", parts.get("question"))
    if text is not None and clip is not None and asked:
        raise InputError("text beside audio is the question about it already: leave out the text or the question")
    return Asked(
        text=text,
        clip=clip,
        # A text beside audio is what this call asks, and comes before what is asked where nothing is said.
        question=None if text is not None and clip is not None else asked or default_question or None,
        instruction=_words("instruction", instruction)
        or _words("instruction", parts.get("instruction"))
        or default_instruction
        or None,
    )


def read_document(index: int, text: str) -> Item:
    """What a document's `page_content` stands for: the clip of a reference, or the text itself.

    Raises:
        InputError: half a reference; names `index`.
    """
    if not AudioClip.looks_like_reference(text):
        return text
    try:
        return AudioClip.from_reference(text)
    except InputError as error:
        raise error.at(index) from error


def open_audio(audio: Any) -> AudioClip:
    """A clip, a path, or a reference as a clip.

    Unlike a path, which code wrote, a reference may come from a store, and is only opened where that is allowed.
    """
    if isinstance(audio, str) and AudioClip.looks_like_reference(audio):
        return AudioClip.from_reference(audio)
    return as_clip(audio)


def check_count(name: str, value: Any) -> int | None:
    """`value`, if it says how many; None says nothing."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name} must be a whole number of 1 or more, or None, got {value!r}")
    return value


def _parts(query: Any) -> dict[str, Any]:
    if isinstance(query, str):
        return {"text": query}
    if not isinstance(query, Mapping):
        raise InputError(f"a query is a str or a dict of {_names()}, got {type(query).__name__}")
    if unknown := [key for key in query if key not in PARTS]:
        raise InputError(f"a query has {_names()}, got {unknown}")
    return {key: value for key, value in query.items() if value is not None}


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f'"text" must be a str, got {type(text).__name__}')
    return str(check_item(text, None))


def _clip(audio: Any) -> AudioClip | None:
    return None if audio is None else open_audio(audio)


def _words(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a str or None, got {value!r}")
    return value or None


def _names() -> str:
    return ", ".join(f'"{name}"' for name in PARTS)
