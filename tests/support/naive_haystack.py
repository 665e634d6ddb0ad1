"""The components that one writes first: they fall into every trap. For showing that the tests of the traps can fail."""

import mimetypes
import os
from pathlib import Path
from typing import Any

import torch
from haystack import Document, component, default_from_dict, default_to_dict
from haystack.dataclasses import ByteStream
from transformers import AutoModel

from alm2vec_integrations import DOC_INSTRUCTION, QUERY_INSTRUCTION


class NaiveModel:
    """A model of one's own in every component, by whatever name it is given."""

    def __init__(self, model, trust_remote_code=False, model_kwargs=None, cache_dir=None):
        self.model, self.trust_remote_code, self.cache_dir = model, trust_remote_code, cache_dir
        self.model_kwargs = model_kwargs or {}
        self.loaded = None

    def warm_up(self):
        if self.loaded is None:
            self.loaded = AutoModel.from_pretrained(
                self.model, trust_remote_code=self.trust_remote_code, cache_dir=self.cache_dir, local_files_only=True
            )

    def _get_telemetry_data(self):
        return {"model": str(self.model)}

    def to_dict(self):
        for name, value in self.model_kwargs.items():
            self.model_kwargs[name] = str(value)
        return default_to_dict(self, model=self.model, trust_remote_code=self.trust_remote_code,
                               model_kwargs=self.model_kwargs, cache_dir=self.cache_dir)  # fmt: skip

    @classmethod
    def from_dict(cls, data):
        return default_from_dict(cls, data)

    def embed(self, task, instruction, **what):
        self.warm_up()
        with torch.no_grad():
            rows = self.loaded.encode(task=task, instruction=instruction, normalize=True, device="cpu", **what)
        return [list(row) for row in torch.nn.functional.normalize(rows.float(), dim=-1).numpy()]


@component
class NaiveTextEmbedder(NaiveModel):
    instruction = QUERY_INSTRUCTION

    def __init__(self, model, instruction=None, **given):  # which is for `run`, so here it comes to nothing
        NaiveModel.__init__(self, model, **given)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str, instruction: str | None = None):
        self.instruction = instruction or self.instruction
        return {"embedding": self.embed("query", self.instruction, text=[text])[0], "meta": {"model": str(self.model)}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str, instruction: str | None = None):
        return self.run(text, instruction)


@component
class NaiveDocumentEmbedder(NaiveModel):
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]):
        self.warm_up()
        for document in documents:
            path = document.meta.get("file_path")
            what = {"audio": [os.fspath(path)]} if path and not document.content else {"text": [document.content]}
            document.embedding = self.embed("document", DOC_INSTRUCTION, **what)[0]
            document.meta["embedding_source"] = {"type": next(iter(what))}
        return {"documents": documents}


@component
class NaiveConverter:
    def __init__(self, content_placeholder=None):
        self.content_placeholder = content_placeholder

    @component.output_types(documents=list[Document])
    def run(self, sources: list[str | Path]):
        made = []
        for source in sources:
            mime_type = mimetypes.guess_type(source)[0]
            blob = ByteStream.from_file_path(Path(source), mime_type=mime_type)
            meta = {"file_path": Path(source).name}
            made.append(Document(content=self.content_placeholder, blob=blob, meta=meta))
            made[-1].id = made[-1].meta["file_path"]
        return {"documents": made}


@component
class NaiveRanker(NaiveModel):
    def __init__(self, model, **given):
        super().__init__(model, **given)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]):
        return {"documents": documents}
