"""What the doctor found, for reading and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..instructions import QUESTIONS

Status = Literal["good", "good with settings", "doubtful", "unusable"]


def by_reason(failed: Mapping[str, str]) -> dict[str, str]:
    """What failed for each reason, in one string: several things often fail for one."""
    return {
        reason: "; ".join(what for what, why in failed.items() if why == reason)
        for reason in dict.fromkeys(failed.values())
    }


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        model: the checkpoint's name.
        status: in a word.
        verdict: sentences that a person can act on.
        settings: keyword arguments for `ALM2VecEncoder` that follow from it.
        load: the load report, or None if it does not load.
        determinism: largest difference between two encodings of one item, in any component.
        wobble: the largest 1 - cosine between them.
        coupling: the largest 1 - cosine between an item in a list and the same alone, by list and task.
        failed: what the model does not do, and what it raised.
        drift: 1 - cosine of probes in bfloat16 and in float32; None if it could not be measured.
        hearing: 1 - cosine between the vectors of two different sounds with a question, the smallest of several.
        hearing_alone: the same without a question; None if the model does not take that.
        reading: the same of different texts.
        example: the card's example on the supplied clips: cosines with "male" and "female", by file.
        audio_seconds_per_second: of clips of 10 s, decoding included.
        published: mean absolute difference from the published cosines and share of right first ranks, by form, best
            first.
    """

    model: str
    status: Status = "good"
    verdict: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] | None = None
    determinism: float | None = None
    wobble: float | None = None
    coupling: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    drift: float | None = None
    hearing: float | None = None
    hearing_alone: float | None = None
    reading: float | None = None
    example: dict[str, dict[str, float]] = field(default_factory=dict)
    audio_seconds_per_second: float | None = None
    published: list[dict[str, Any]] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        """Add to the verdict what is not in it."""
        if sentence not in self.verdict:
            self.verdict.append(sentence)

    def doubt(self, sentence: str) -> None:
        """Add a reason not to rely on it."""
        self.status = "doubtful"
        self.say(sentence)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = []
        if self.load is not None:
            lines += [f"loaded on {self.load['device']} in {self.load['dtype']}, {self.load['seconds']:.1f} s"]
            lines += [f"  checked: {check}" for check in self.load["checks"]]
            lines += [f"  warning: {warning}" for warning in self.load["warnings"]]
        if self.drift is not None:
            lines.append(f"bfloat16 differs from float32 by {self.drift:.1e} (1 - cosine)")
        said = "\n".join(self.verdict)
        lines += [f"{what}: {reason}" for reason, what in by_reason(self.failed).items() if reason not in said]
        if self.determinism is not None:
            lines.append(f"the same item twice differs by {self.determinism:.1e}")
        lines += [f"{name}: in a list and alone differ by up to {worst:.1e}" for name, worst in self.coupling.items()]
        if self.hearing is not None:
            lines.append(f"different sounds differ by at least {self.hearing:.1e}")
        if self.hearing_alone is not None:
            lines.append(f"without a question, by at least {self.hearing_alone:.1e}")
        if self.reading is not None:
            lines.append(f"different texts, by at least {self.reading:.1e}")
        if self.audio_seconds_per_second is not None:
            lines.append(f"{self.audio_seconds_per_second:.0f} seconds of audio per second")
        if self.example:
            lines.append(f'"{QUESTIONS["gender"]}"')
            lines += [f"  male {x['male']:7.4f}  female {x['female']:7.4f}  {name}" for name, x in self.example.items()]
        if self.published:
            lines.append("published cosines, by form of the query and of the document:")
            lines += [
                f"  off by {row['difference']:.4f}, first ranks right {row['first_ranks']:.0%}: "
                f"({row['query']}) and ({row['document']})"
                for row in self.published
            ]
        parts = [f"{self.model}: {self.status}", "\n".join(lines), said]
        return "\n\n".join(part for part in parts if part)
