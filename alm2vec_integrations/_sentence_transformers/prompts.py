"""Named prompts, which are instructions here, and what a prompt's name says of the task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

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


def task_of(prompt: str | None, prompts: Mapping[str, str]) -> Task:
    """The library's `encode` says which prompt but not which task: it is that of the prompt's name."""
    names = {name for name, text in prompts.items() if text == prompt}
    if "document" in names and names != {"document"}:
        warnings.warn(
            f"the prompt {prompt!r} has several names, {sorted(names)}, and is taken for a document's: use "
            "encode_query or encode_document, or say task=",
            ALM2VecWarning,
            stacklevel=3,
        )
    return "query" if names and "document" not in names else "document"
