"""What a retriever asks for beyond a string, on its way past the store to the embeddings.

A store hands the embeddings the text of a query and nothing else. So the retriever leaves the rest in a context
variable while the store searches, and `ALM2VecEmbeddings.embed_query` finds it there. A context variable belongs to
one call: calls side by side, in threads or tasks, each see their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..inputs import Item
from ..instructions import Task


@dataclass(eq=False)
class PendingQuery:
    """A query that a store is about to ask the embeddings for.

    Attributes:
        text: what the store is given in its place, and will ask with.
        item: what is embedded.
        task: for the model.
        instruction: for the model; None is that of the embeddings.
        consumed: whether the embeddings were asked for it. Copies of a context share this object, so that the
            retriever sees what happened in a thread of the store's.
    """

    text: str
    item: Item
    task: Task
    instruction: str | None
    consumed: bool = field(default=False, init=False)


_pending: ContextVar[PendingQuery | None] = ContextVar("alm2vec_pending_query", default=None)


@contextmanager
def pending(query: PendingQuery) -> Iterator[None]:
    """Let the embeddings find `query` while the block runs."""
    token = _pending.set(query)
    try:
        yield
    finally:
        _pending.reset(token)


def consume(text: str) -> PendingQuery | None:
    """The query that `text` stands for, now consumed; None if it stands for itself."""
    query = _pending.get()
    if query is None or text != query.text:
        return None
    query.consumed = True
    return query
