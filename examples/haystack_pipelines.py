"""The model's jobs in Haystack's pipelines, which are read from YAML, on a small sound library that is made first.

python examples/haystack_pipelines.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "false")  # an example has nothing to report

from haystack import Pipeline
from sound_library import write_library

from alm2vec_integrations import QUESTIONS

FOLDER = Path(__file__).parent / "pipelines"  # a folder called haystack would be taken for the framework


def load(name: str) -> Pipeline:
    """A pipeline of the folder beside this file."""
    return Pipeline.loads((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def picture(pipeline: Pipeline) -> str:
    """A pipeline as a Mermaid diagram, which GitHub draws; made here, where `Pipeline.draw` asks a server."""
    described = pipeline.to_dict()
    kinds = {name: one["type"].rpartition(".")[2] for name, one in described["components"].items()}
    lines = [f'  {name}["{name}<br>{kind}"]' for name, kind in kinds.items()]
    for one in described["connections"]:
        sender, output = one["sender"].split(".", 1)
        receiver, _ = one["receiver"].split(".", 1)
        lines.append(f'  {sender} -->|"{output}"| {receiver}')
    return "\n".join(["graph LR", *lines])


def show(title: str, documents: list[Any]) -> None:
    """The two best."""
    print(f"\n{title}")
    for document in documents[:2]:
        print(f"  {document.score:7.4f}  {document.content or Path(document.meta['file_path']).stem}")


def main() -> None:
    """Index a folder of recordings and notes, then do the jobs."""
    dog, woman = (next(Path("library").glob(f"{name}*.flac")) for name in ("dog over rain", "woman"))
    indexing, search, text_search, aspect = map(load, ("indexing", "search", "text_search", "aspect"))
    done = indexing.run({"router": {"sources": sorted(Path("recordings").iterdir())}})
    for document in done["checked"]["unmatched"]:
        print("Not indexed:", document.meta["alm2vec_error"])

    text = "a church bell in the wind"
    show(f'Text to audio: "{text}"', text_search.run({"search": {"query": text}})["search"]["documents"])

    show(f"Audio to audio: {dog.stem}", search.run({"query": {"audio": dog}})["retriever"]["documents"])

    for question in (QUESTIONS["background"], "What is the main sound?"):
        found = aspect.run({"query": {"audio": dog}, "ranker": {"audio": dog, "query": question}})
        show(f'Audio to audio: {dog.stem}, "{question}"', found["ranker"]["documents"])

    notes = {"field": "meta.alm2vec_kind", "operator": "==", "value": "text"}
    found = search.run({"query": {"audio": woman, "text": QUESTIONS["gender"]}, "retriever": {"filters": notes}})
    show(f'An answer: "{QUESTIONS["gender"]}"', found["retriever"]["documents"])

    for pipeline in (indexing, search, text_search, aspect):
        pipeline.close()


def prepare() -> None:
    """Two folders in this one: recordings and notes to find, and the library that the queries come from."""
    recordings = Path("recordings")
    recordings.mkdir()
    for path in write_library(Path("library"))[1:]:
        shutil.copy(path, recordings)
    for answer in ("male", "female"):
        (recordings / f"{answer}.txt").write_text(answer, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        prepare()
        main()
