"""What fields are given as, and the encoder that is made of them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator

from ..clips import AudioClip
from ..encoder import ALM2VecEncoder

Audio = AudioClip | str | os.PathLike[str]
"""What a parameter takes that can only mean audio."""


def _as_path(value: Any) -> Any:
    """A path object as the text that `ALM2VecEncoder` reads as a folder."""
    return str(Path(value).expanduser().absolute()) if isinstance(value, os.PathLike) else value


# Paths and torch's own objects are taken where their text is, and kept as text, which can be dumped and compared.
PathText = Annotated[str, BeforeValidator(_as_path)]
NameText = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


class MadeEncoder:
    """The encoder made of an embedding's fields, shared by its copies; a pickle of it is empty."""

    def __init__(self) -> None:
        self._made: tuple[dict[str, Any], ALM2VecEncoder] | None = None

    def of(self, settings: dict[str, Any], model: str) -> ALM2VecEncoder:
        """The one that these make; other values than last time make another, and that may be under way in a copy."""
        settings, made = {"model": model, **settings}, self._made
        if made is None or made[0] != settings:
            # Copied, so that a list that is changed in place no longer equals what was used.
            made = self._made = (copy.deepcopy(settings), ALM2VecEncoder(**settings))
        return made[1]

    def __copy__(self) -> Self:
        twin = type(self)()
        twin._made = self._made
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
