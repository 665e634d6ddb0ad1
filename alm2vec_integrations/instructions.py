"""The instructions and questions that ALM2Vec's authors published.

In ALM2Vec an *instruction* says what kind of matching is meant, and a *question* is a text paired with a clip that
says which aspect of it to represent. The model card steers by the question: audio with a question, task "query",
under `QUERY_INSTRUCTION`.
"""

from __future__ import annotations

from typing import Literal

Task = Literal["query", "document"]

# Verbatim from the model card of cara-ai/ALM2Vec-FT.
QUERY_INSTRUCTION = (
    "Based on the question asked in the text query and context in the audio query, "
    "retrieve the relevant text document associated with that question."
)
DOC_INSTRUCTION = "Represent the user's input."

DEFAULT_INSTRUCTIONS: dict[Task, str] = {"query": QUERY_INSTRUCTION, "document": DOC_INSTRUCTION}

# Verbatim from the model card (the first) and from the project page, which calls them instructions.
QUESTIONS = {
    "gender": "What is the gender of speaker in this audio?",
    "background": "Describe the background noise of this audio?",
    "topic": "Describe the speech content and topic.",
    "speech": "Is a person speaking in this audio?",
    "music": "Is there music playing in this audio?",
    "wind": "Is the wind blowing in this audio?",
}
