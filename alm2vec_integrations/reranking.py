"""Order candidates by closeness to a query, both embedded in the form that the model card steers by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import inputs
from .clips import AudioClip
from .errors import InputError
from .inputs import AudioText, Item
from .instructions import Task

if TYPE_CHECKING:
    from .encoder import Encoder

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """One candidate's place.

    Attributes:
        index: in the list of candidates.
        score: cosine of its vector and the query's.
    """

    index: int
    score: float


def rerank(encoder: Encoder, query: Item, candidates: Sequence[Item], **how: Any) -> list[Ranked]:
    """As `ALM2VecEncoder.rerank`, with any encoder; `how` is as for `Ranking`.

    Raises:
        InputError: it names the place in `candidates`, or the query.
    """
    ranking = Ranking(query, candidates, **how)
    for part in ranking.parts:
        with part.blamed():
            part.rows = encoder.encode(part.items, task=part.task, instruction=part.instruction)
    return ranking.best()


async def arerank(encoder: Encoder, query: Item, candidates: Sequence[Item], **how: Any) -> list[Ranked]:
    """`rerank` without blocking the event loop."""
    ranking = Ranking(query, candidates, **how)
    for part in ranking.parts:
        with part.blamed():
            part.rows = await encoder.aencode(part.items, task=part.task, instruction=part.instruction)
    return ranking.best()


@dataclass
class Part:
    """What is embedded in one call.

    Attributes:
        items: all with the same task and instruction.
        task: for the model.
        instruction: for the model; None is the encoder's own.
        places: of the items among the candidates; None for the query.
        rows: float32 [len(items), dim], once they are embedded.
    """

    items: list[Item]
    task: Task
    instruction: str | None
    places: list[int] | None
    rows: Rows | None = None

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Make an error that names a place in this part name the place among the candidates, or the query."""
        try:
            yield
        except InputError as error:
            if self.places is None:
                source = "the query" if error.source is None else f"the query, {error.source}"
                raise type(error)(error.reason, source=source) from error
            raise (error if error.index is None else error.at(self.places[error.index])) from error


class Ranking:
    """What has to be embedded to rank candidates, and the ranking once it is.

    Args:
        query: one item.
        candidates: items of any kind.
        question: the aspect to compare by; for an `AudioText` query its text if None.
        instruction: for what is embedded as a query.
        document_instruction: for what is embedded as a document.
        top_n: how many to return; all if None.

    Attributes:
        parts: to be embedded, in this order; none if there are no candidates.

    Raises:
        InputError: an item or `top_n` is none.
    """

    def __init__(
        self,
        query: Item,
        candidates: Sequence[Item],
        *,
        question: str | None = None,
        instruction: str | None = None,
        document_instruction: str | None = None,
        top_n: int | None = None,
    ) -> None:
        if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
            raise InputError(f"top_n must be a whole number of 1 or more, or None, got {top_n!r}")
        if not inputs.is_single(query):
            raise InputError(f"rerank takes one query, got {type(query).__name__}")
        items = [inputs.check_item(item, index) for index, item in enumerate(inputs.in_order(candidates))]
        self._top_n = top_n
        self._question = question or (query.text if isinstance(query, AudioText) else None)
        self._instructions: dict[Task, str | None] = {"query": instruction, "document": document_instruction}
        self.parts: list[Part] = []
        if items:
            self._add([query], None, plain="query")
            self._add(items, range(len(items)), plain="document")

    def _add(self, items: Sequence[Item], places: Sequence[int] | None, *, plain: Task) -> None:
        """Audio steered by the question, as a query; texts beside it as answers, which the card embeds as documents.

        Without a question everything goes by its side's task, `plain`.
        """
        if not self._question:
            self._add_part(items, places, range(len(items)), plain)
            return
        steered = [AudioText(self._question, item) if isinstance(item, AudioClip) else item for item in items]
        is_text = [inputs.clip_of(item) is None for item in steered]
        for text, task in ((False, "query"), (True, "document")):
            self._add_part(steered, places, [i for i, one in enumerate(is_text) if one is text], task)  # type: ignore[arg-type]

    def _add_part(self, items: Sequence[Item], places: Sequence[int] | None, chosen: Sequence[int], task: Task) -> None:
        if chosen:
            own = None if places is None else [places[i] for i in chosen]
            self.parts.append(Part([items[i] for i in chosen], task, self._instructions[task], own))

    def best(self) -> list[Ranked]:
        """The best candidates, best first, when every part is embedded."""
        if not self.parts:
            return []
        query, *others = self.parts
        places = [place for part in others for place in part.places or ()]
        vectors = np.concatenate([part.rows for part in others if part.rows is not None])
        vectors = vectors[np.argsort(places)]
        assert query.rows is not None  # noqa: S101 - for the type checker: embedded before this is called
        scores = vectors @ query.rows[0]
        order = np.argsort(-scores, kind="stable")[: self._top_n]
        return [Ranked(int(i), float(scores[i])) for i in order]
