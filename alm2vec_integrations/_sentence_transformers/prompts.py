"""Named prompts, which are instructions here, and what a prompt's name says of the task."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Self

from .. import arguments
from ..errors import ALM2VecWarning, InputError
from ..instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION, QUESTIONS, Task

PROMPTS: dict[str, str] = {
    "query": QUERY_INSTRUCTION,
    "document": DOC_INSTRUCTION,
    "question": QUERY_INSTRUCTION,
    **QUESTIONS,
}
"""Named prompts. "question" is the model card's way with a clip and a question about it: a query. Those after it are
the project page's, which calls them instructions: the model card only shows them as questions."""


def named_prompts(prompts: Mapping[str, str] | None, encoder_arguments: dict[str, Any]) -> dict[str, str]:
    """The published prompts, those of the encoder's arguments (which are taken out), and the user's own.

    Raises:
        InputError: one of them is not an instruction.
    """
    said = dict(PROMPTS)
    for task in ("query", "document"):
        own = arguments.instruction(f"{task}_instruction", encoder_arguments.pop(f"{task}_instruction", None))
        if own:
            said[task] = own
    if prompts is not None and not isinstance(prompts, Mapping):
        raise InputError(f"prompts must be a dict of names and instructions, got {prompts!r}")
    for name, text in (prompts or {}).items():
        said[str(name)] = arguments.instruction(f"prompts[{name!r}]", text) or ""
    return said


class Owners:
    """The models that a module is a part of: their users may change their prompts, and put others in their place.

    A copy knows the model that was copied with it. A pickle keeps the prompts themselves, so that those of a model
    that was pickled as a whole are seen to change, but not to be replaced.
    """

    def __init__(self) -> None:
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()
        self._kept: list[Mapping[str, str]] = []

    def add(self, model: Any) -> None:
        """Another one."""
        self._models.add(model)

    def prompts(self) -> list[Mapping[str, str]]:
        """Of each."""
        return [model.prompts for model in self._models] or self._kept

    def learn_nothing(self) -> bool:
        """Whether none of them has anything that training could change."""
        models = list(self._models)
        return bool(models) and not any(p.requires_grad for model in models for p in model.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": self.prompts()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._kept = state["_kept"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__class__()
        twin._kept = copy.deepcopy(self.prompts(), memo)
        for model in self._models:
            if id(model) in memo:
                twin.add(memo[id(model)])
        return twin


def task_of(prompt: str | None, prompts: Sequence[Mapping[str, str]]) -> Task:
    """The library's `encode` says which prompt but not which task: it is that of the prompt's name."""
    names = {name for named in prompts for name, text in named.items() if text == prompt}
    if "document" in names and names != {"document"}:
        warnings.warn(
            f"the prompt {prompt!r} has several names, {sorted(names)}, and is taken for a document's: use "
            "encode_query or encode_document, or say task=",
            ALM2VecWarning,
            stacklevel=3,
        )
    return "query" if names and "document" not in names else "document"
