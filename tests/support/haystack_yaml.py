"""Pipelines from YAML alone, in a process that imports Haystack and nothing of ours.

python haystack_yaml.py FOLDER, in a folder that holds `recordings` and `query`; prints what is found, as JSON.
"""

import asyncio
import json
import sys
import warnings
from pathlib import Path

from haystack import Pipeline

warnings.simplefilter("ignore")


def ours():
    # The checkpoint's own code is copied to a place of transformers'.
    named = {name: module for name, module in sys.modules.items() if "alm2vec" in name}
    return {name: module for name, module in named.items() if not name.startswith("transformers_modules")}


def load(name):
    return Pipeline.loads((Path(sys.argv[1]) / f"{name}.yaml").read_text(encoding="utf-8"))


def names(found):
    return [document.content or Path(document.meta["file_path"]).stem for document in found["documents"]]


async def in_loop(indexing, search, sources, given):
    await indexing.run_async({"router": {"sources": sources}})
    return names((await search.run_async(given))["retriever"])


assert not ours()
indexing, search, text_search, aspect = map(load, ("indexing", "search", "text_search", "aspect"))
sources = sorted(Path("recordings").iterdir())
written = indexing.run({"router": {"sources": sources}})["writer"]["documents_written"]
dog, woman = "query/dog over rain.flac", "query/woman over piano.flac"
texts = {"field": "meta.alm2vec_kind", "operator": "==", "value": "text"}
answer = {
    "query": {"audio": woman, "text": "What is the gender of speaker in this audio?"},
    "retriever": {"filters": texts},
}
found = {
    "written": written,
    "text": names(search.run({"query": {"text": "a church bell in the wind"}})["retriever"]),
    "clip": names(search.run({"query": {"audio": dog}})["retriever"]),
    "clip and question": names(search.run(answer)["retriever"]),
    "nested": names(text_search.run({"search": {"query": "a church bell in the wind"}})["search"]),
    "async": asyncio.run(in_loop(indexing, search, sources, answer)),
}
for question in ("Describe the background noise of this audio?", "What is the main sound?"):
    given = {"query": {"audio": dog}, "ranker": {"audio": dog, "query": question}}
    found[question] = names(aspect.run(given)["ranker"])
found["from"] = sorted({str(Path(module.__file__).parents[0]) for module in ours().values() if module.__file__})
print(json.dumps(found))
