"""What fields are given as, and the encoder that is made of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator

from ..checkpoint.stored import other_keywords
from ..clips import AudioClip
from ..encoder import ALM2VecEncoder
from ..errors import InputError

Audio = AudioClip | str | os.PathLike[str]
"""What a parameter takes that can only mean audio."""


def _as_path(value: Any) -> Any:
    """A path object as the text that `ALM2VecEncoder` reads as a folder."""
    return str(Path(value).expanduser().absolute()) if isinstance(value, os.PathLike) else value


# Paths and torch's own objects are taken where their text is, and kept as text, which can be dumped and compared.
PathText = Annotated[str, BeforeValidator(_as_path)]
NameText = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


def check_dump(kind: type[BaseModel], data: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a dump that holds what is part of none: places on a machine, doors, guards, and foreign code.

    Args:
        kind: of what was dumped.
        data: the dump.
        given: by Python code in its place.

    Raises:
        InputError: it holds such a field, and Python code gives none.
    """
    decides = {name for name, field in kind.model_fields.items() if field.exclude}
    if decided := sorted(decides & data.keys() - given.keys()):
        raise InputError(f"a stored configuration cannot decide {decided}: pass them to from_dict as keywords")
    kwargs = None if "model_kwargs" in given else data.get("model_kwargs")
    if isinstance(kwargs, Mapping) and (others := other_keywords(kwargs)):
        raise InputError(
            f"a stored configuration cannot decide {others} of model_kwargs: pass model_kwargs to from_dict as a "
            "keyword"
        )


class MadeEncoder:
    """The encoder made of an embedding's fields. A copy begins with the same one; a pickle of it is empty."""

    def __init__(self) -> None:
        self._made: tuple[dict[str, Any], ALM2VecEncoder] | None = None

    def of(self, settings: dict[str, Any], model: str) -> ALM2VecEncoder:
        """The one that these make; other values than last time make another."""
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
