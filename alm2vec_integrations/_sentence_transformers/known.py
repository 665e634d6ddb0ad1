"""What this process was told of checkpoints, in Python: the checkpoints of its own trainings name them and no more.

When a training ends with its best model, the library opens that folder without any of the arguments that the model was
loaded with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint.stored import check_stored

Named = tuple[str, str | None]
"""A checkpoint and its revision."""

MEANS = ("token", "cache_dir")
"""The encoder's arguments by which a checkpoint is reached, and which no file holds."""

_trusted: set[Named] = set()
_reached: dict[Named, Mapping[str, Any]] = {}


def note(named: Named, *, trusted: bool, means: Mapping[str, Any]) -> None:
    """Remember a checkpoint that was loaded."""
    before = _reached.get(named, {})
    _reached[named] = {name: before.get(name) if value is None else value for name, value in means.items()}
    if trusted:
        _trusted.add(named)


def means(named: Named, *, token: bool | str | None, cache_dir: Any) -> dict[str, Any]:
    """How to reach a checkpoint that a file names: as said, and otherwise as this process did before."""
    before = _reached.get(named, {})
    return {
        "token": before.get("token") if token is None else token,
        "cache_dir": before.get("cache_dir") if cache_dir is None else cache_dir,
    }


def is_trusted(named: Named, **reach: Any) -> bool | None:
    """The encoder's `trust_remote_code` for a checkpoint that a file names.

    Args:
        named: the checkpoint.
        **reach: the encoder's arguments by which it is reached.

    Raises:
        CheckpointError: it is in a trusted repository, but nobody has accepted that revision there.
    """
    if named in _trusted:
        return True
    check_stored(*named, **reach)
    return None
