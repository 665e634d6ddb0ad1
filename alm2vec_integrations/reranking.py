"""Order candidates by closeness to a query, both embedded in the form that the model card steers by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from . import inputs
from .clips import AudioClip
from .errors import InputError
from .inputs import AudioText, Item
from .instructions import Task

if TYPE_CHECKING:
    from .encoder import Encoder


@dataclass(frozen=True)
class Ranked:
    """One candidate's place.

    Attributes:
        index: in the list of candidates.
        score: cosine of its vector and the query's.
    """

    index: int
    score: float


def rerank(
    encoder: Encoder,
    query: Item,
    candidates: Sequence[Item],
    *,
    question: str | None = None,
    instruction: str | None = None,
    top_n: int | None = None,
) -> list[Ranked]:
    """As `ALM2VecEncoder.rerank`, with any encoder.

    Raises:
        InputError: it names the place in `candidates`, or the query.
    """
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise InputError(f"top_n must be a whole number of 1 or more, or None, got {top_n!r}")
    if not inputs.is_single(query):
        raise InputError(f"rerank takes one query, got {type(query).__name__}")
    candidates = [inputs.check_item(item, index) for index, item in enumerate(inputs.in_order(candidates))]
    if not candidates:
        return []
    if not question and isinstance(query, AudioText):
        question = query.text
    try:
        query_vector = _embed(encoder, [query], question, instruction, plain="query")[0]
    except InputError as error:
        source = "the query" if error.source is None else f"the query, {error.source}"
        raise type(error)(error.reason, source=source) from error
    vectors = _embed(encoder, candidates, question, instruction, plain="document")
    scores = vectors @ query_vector
    order = np.argsort(-scores, kind="stable")[:top_n]
    return [Ranked(int(i), float(scores[i])) for i in order]


def _embed(
    encoder: Encoder, items: Sequence[Item], question: str | None, instruction: str | None, *, plain: Task
) -> npt.NDArray[np.float32]:
    """Audio steered by the question, as a query; texts beside it as the answers, which the card embeds as documents.

    Without a question everything goes by its side's task, `plain`.
    """
    if not question:
        return encoder.encode(items, task=plain, instruction=instruction if plain == "query" else None)
    steered = [AudioText(question, item) if isinstance(item, AudioClip) else item for item in items]
    vectors: list[npt.NDArray[np.float32] | None] = [None] * len(items)
    for has_audio in (True, False):
        positions = [i for i, item in enumerate(steered) if (inputs.clip_of(item) is not None) is has_audio]
        if positions:
            try:
                rows = encoder.encode(
                    [steered[i] for i in positions],
                    task="query" if has_audio else "document",
                    instruction=instruction if has_audio else None,
                )
            except InputError as error:
                raise (error if error.index is None else error.at(positions[error.index])) from error
            for i, row in zip(positions, rows, strict=True):
                vectors[i] = row
    return np.stack([row for row in vectors if row is not None])
