"""Change something from outside for a while, and leave no trace."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for a while, then restore exactly what `owner` itself had."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextlib.contextmanager
def wrapped(owner: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, `owner.name(...)` calls `replacement(original, ...)` in this thread, and itself in others.

    Args:
        owner: a class or a module; what it does not have is left alone, as versions of transformers differ.
        name: of a function or method.
        replacement: gets what it stands for, then the arguments of the call.
    """
    original = getattr(owner, name, None)
    if original is None:
        yield
        return
    here, lasting = threading.get_ident(), True

    @functools.wraps(original)
    def called(*args: Any, **keywords: Any) -> Any:
        # Whoever changed the same place meanwhile may put this back when it is over.
        if lasting and threading.get_ident() == here:
            return replacement(original, *args, **keywords)
        return original(*args, **keywords)

    try:
        with attribute(owner, name, called):
            yield
    finally:
        lasting = False
