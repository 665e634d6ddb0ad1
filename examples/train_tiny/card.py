"""The card of alm2vec-tiny: card.md, filled in with what the evaluation measured."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from . import scenes, wording
from .scoring import Score

TEMPLATE = Path(__file__).with_name("card.md")
RESULTS = Path(__file__).with_name("results.json")
"""What the evaluation measured, and of which weights: the card is made of nothing else."""


def table(scores: Sequence[Score]) -> str:
    """As Markdown; a cell is empty where a baseline means nothing."""
    names = list(dict.fromkeys(name for score in scores for name in score.baselines))
    lines = [f"| | right | {' | '.join(names)} | of |", "|---|---|" + "---|" * len(names) + "---|"]
    for score in scores:
        cells = [f"{score.baselines[name]:.2f}" if name in score.baselines else "" for name in names]
        lines.append(f"| {score.name} | **{score.value:.3f}** | {' | '.join(cells)} | {score.count} |")
    return "\n".join(lines)


def digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def write(folder: Path, results: Mapping[str, Sequence[Score]], smoke: str) -> None:
    """Keep the results, and write the README of the checkpoint that they were measured on."""
    tables = {title: [asdict(score) for score in scores] for title, scores in results.items()}
    report = {"weights": digest(folder), "tables": tables, "recordings": smoke}
    RESULTS.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(rendered(folder, report), encoding="utf-8")


def rendered(folder: Path, report: Mapping[str, Any]) -> str:
    """The card's text.

    Raises:
        ValueError: the results are those of other weights.
    """
    if report["weights"] != digest(folder):
        raise ValueError(f"the results are not those of the weights in {folder}: evaluate them with --card")
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        names = [name for name in file.keys() if "front_end" not in name]  # noqa: SIM118 - not a dict
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    tables = {title: [Score(**score) for score in scores] for title, scores in report["tables"].items()}
    return TEMPLATE.read_text(encoding="utf-8").format(
        parameters=count / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        events=len(scenes.EVENTS),
        textures=len(scenes.TEXTURES),
        music=len(scenes.MUSIC),
        kinds="; ".join(wording.NAMES[kind][0] for kind in scenes.KINDS),
        questions=sum(len(trained) for trained, _ in wording.ASKED.values()),
        instructions=sum(len(trained) for trained, _ in wording.STEERING.values()),
        captions=sum(len(trained) for trained, _ in wording.CAPTIONS.values()),
        example_captions=_first_of_each(wording.CAPTIONS),
        example_questions=_first_of_each(wording.ASKED),
        example_instructions=_first_of_each(wording.STEERING),
        tables="\n\n".join(f"### {title}\n\n{table(scores)}" for title, scores in tables.items()),
        recordings=report["recordings"],
    )


def _first_of_each(wordings: Mapping[str, tuple[list[str], list[str]]]) -> str:
    return "\n".join(f"- {name}: {trained[0]}" for name, (trained, _) in wordings.items())
