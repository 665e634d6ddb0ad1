"""What was measured, in sentences that a person can act on."""

from __future__ import annotations

from .. import tiny
from .diagnosis import Diagnosis, by_reason
from .measures import FORMS, LONG, depends_on_equals, is_too_long

COUPLED = {"float32": 1e-6, "lower": 2e-3}
"""1 - cosine between an item alone and beside others, above which the others have a say: rounding in float32 stays
under 1e-8, in bfloat16 under 1e-3."""

DEAF = 1e-5
"""1 - cosine between different sounds, below which they count as the same."""

RANDOM = 1e-3
"""Largest difference between two encodings of one item, above which something in the model is random."""

BEYOND_RANDOM = 4
"""How many times as far as the same item twice an item alone and beside others must be apart for the others to be
blamed for it."""

REPRODUCED = 0.02
"""Mean absolute difference from published cosines, which have four digits and were made in an unknown precision."""

FALLEN_BACK = "float32 is used"
"""In the load report's warnings where a lower precision was tried and did not do."""


def unusable(found: Diagnosis, why: str) -> Diagnosis:
    """The verdict on a checkpoint that does not work as its card says."""
    found.status = "unusable"
    found.say(f"Do not use it: {why}")
    return found


def judge(found: Diagnosis) -> None:
    """Say what follows from what was measured without clips of the user's."""
    assert found.load is not None  # noqa: S101 - it loaded
    if found.hearing is None or found.hearing < DEAF:
        found.doubt(
            "It may not hear: different sounds come out alike. Do not index audio with it before this is explained."
        )
    elif found.hearing_alone is not None and found.hearing_alone < DEAF:
        found.doubt(
            "It does not hear a clip without a question: pair every clip with one (AudioText, document_question)."
        )
    if found.reading is None or found.reading < DEAF:
        found.doubt("It may not read: different texts come out alike. Do not search by text before this is explained.")
    if is_random(found):
        found.doubt("The same item gives different vectors from call to call: something in it is random.")
    else:
        # What is random in it would be taken for its neighbours' doing.
        _judge_coupling(found)
    for reason, forms in by_reason({form: found.failed[form] for form in FORMS if form in found.failed}).items():
        found.say(f"It does not take {forms}: {reason}")
    if any(FALLEN_BACK in warning for warning in found.load["warnings"]):
        keep_to_float32(found)


def is_random(found: Diagnosis) -> bool:
    """Whether something in it is random, beyond rounding."""
    return found.determinism is None or found.determinism > RANDOM


def keep_to_float32(found: Diagnosis) -> None:
    """Have float32 set, since less does not do."""
    found.settings["dtype"] = "float32"
    found.say('Lower precision does not do for it: pass dtype="float32", which saves trying.')


def _judge_coupling(found: Diagnosis) -> None:
    assert found.load is not None  # noqa: S101 - it loaded
    limit = COUPLED["float32" if found.load["dtype"] == "float32" else "lower"]
    wobble = found.wobble or 0.0
    if wobble > limit:
        found.say(
            f"The same item differs by {wobble:.1e} (1 - cosine) between calls: something in it is slightly random, "
            "and less than that cannot be told of its neighbours' influence."
        )
    coupled = {name for name, worst in found.coupling.items() if worst > max(limit, BEYOND_RANDOM * wobble)}
    items = {what: reason for what, reason in found.failed.items() if what.startswith(("a clip of", "a text of"))}
    for reason, long in by_reason({what: reason for what, reason in items.items() if is_too_long(what)}).items():
        found.say(f"It does not take {long} ({reason}): cut longer recordings, as docs/audio.md says.")
    for what in [what for what in items if not is_too_long(what)][:1]:
        found.doubt(f"It fails on some items, even by themselves: {what}: {items[what]}")
    # Their items work by themselves.
    coupled |= {name for name in found.failed if name.startswith(("clips of", "texts of", "questions of"))}
    if any(map(depends_on_equals, coupled)):
        found.settings["batching"] = "single"
        found.say('Its vectors depend on what else is in the batch: pass batching="single".')
    elif coupled:
        found.settings["batching"] = "equal"
        found.say('Its vectors depend on longer items in the batch: pass batching="equal".')


def judge_long(found: Diagnosis) -> None:
    """How it does on clips of 10 s."""
    if LONG in found.failed:
        found.doubt(f"It fails on {LONG}: {found.failed[LONG]}")


def judge_published(found: Diagnosis) -> None:
    """Whether it is the published model."""
    if not found.published:
        found.doubt("The published cosines could not be compared: no form of the call works for them.")
        return
    best = found.published[0]
    if best["difference"] <= REPRODUCED:
        found.say(f"It reproduces the published cosines with ({best['query']}) and ({best['document']}).")
    else:
        found.doubt(
            f"It does not reproduce the published cosines: off by {best['difference']:.2f} at best. These are not "
            "the published weights, or they were not loaded as they were meant to be."
        )


def conclude(found: Diagnosis) -> None:
    """The last word: its status, and how to use it."""
    stand_in = found.load is not None and tiny.is_stand_in(found.load["code"])
    if stand_in:
        found.say(f"It is {tiny.NAME}'s code, a demonstration model, not ALM2Vec: do not index with it.")
    if found.status == "doubtful":
        return
    found.status = "good with settings" if found.settings else "good"
    how = ", ".join(f'{name}="{value}"' for name, value in found.settings.items())
    if not stand_in:
        found.say(f"Use it with {how}." if how else "Use it as it is.")
