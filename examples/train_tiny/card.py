"""The card of alm2vec-tiny: card.md, filled in with what the evaluation measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from . import scenes, wording

if TYPE_CHECKING:
    from .evaluate import Score

TEMPLATE = Path(__file__).with_name("card.md")


def table(scores: Sequence[Score]) -> str:
    """As Markdown; a cell is empty where a baseline means nothing."""
    names = list(dict.fromkeys(name for score in scores for name in score.baselines))
    lines = [f"| | right | {' | '.join(names)} | of |", "|---|---|" + "---|" * len(names) + "---|"]
    for score in scores:
        cells = [f"{score.baselines[name]:.2f}" if name in score.baselines else "" for name in names]
        lines.append(f"| {score.name} | **{score.value:.3f}** | {' | '.join(cells)} | {score.count} |")
    return "\n".join(lines)


def write_card(folder: Path, results: Mapping[str, Sequence[Score]], smoke: str) -> None:
    """Write the README of a checkpoint folder."""
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        names = [name for name in file.keys() if "front_end" not in name]  # noqa: SIM118 - not a dict
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    filled = TEMPLATE.read_text(encoding="utf-8").format(
        parameters=count / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        events=len(scenes.EVENTS),
        textures=len(scenes.TEXTURES),
        music=len(scenes.MUSIC),
        kinds="; ".join(wording.NAMES[kind][0] for kind in scenes.KINDS),
        questions=sum(len(trained) for trained, _ in wording.ASKED.values()),
        instructions=sum(len(trained) for trained, _ in wording.STEERING.values()),
        example_questions="\n".join(f"- {aspect}: {trained[0]}" for aspect, (trained, _) in wording.ASKED.items()),
        tables="\n\n".join(f"### {title}\n\n{table(scores)}" for title, scores in results.items()),
        recordings=smoke,
    )
    (folder / "README.md").write_text(filled, encoding="utf-8")
