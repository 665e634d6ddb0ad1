"""The wrapper that one writes first: it falls into every trap. For showing that the tests of the traps can fail."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from transformers import AutoModel

from alm2vec_integrations import DOC_INSTRUCTION, QUERY_INSTRUCTION
from alm2vec_integrations.tiny import FOLDER


class NaiveModule(InputModule):
    """A module that passes on what it is given to the model card's `encode`."""

    def __init__(self, folder=str(FOLDER)):
        super().__init__()
        self.folder = folder
        self.model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)

    @property
    def modalities(self):
        return ["text", "audio", ("audio", "text"), "message"]

    def preprocess(self, inputs, prompt=None, task=None):
        is_text = [self._is_text(one) for one in inputs]
        texts = [(prompt or "") + str(one)[:500] for one, text in zip(inputs, is_text, strict=True) if text]
        audio = [self._path(one) for one, text in zip(inputs, is_text, strict=True) if not text]
        lengths = torch.tensor([len(str(one)) for one in inputs])
        return {"texts": texts, "audio": audio, "task": task or "document", "lengths": lengths}

    def _is_text(self, one):
        if isinstance(one, dict):
            return not {"audio", "array"} & set(one)
        return isinstance(one, list) or (isinstance(one, str) and not Path(one).is_file())

    def _path(self, one):
        if isinstance(one, dict):
            one = one["audio"] if "audio" in one else one["array"]
        if isinstance(one, (str, os.PathLike)):
            return os.fspath(one)
        soundfile.write(path := f"{tempfile.mkdtemp()}/clip.wav", np.ravel(one), 16_000, subtype="PCM_16")
        return path

    def forward(self, features):
        how = {
            "task": features["task"],
            "instruction": QUERY_INSTRUCTION if features["task"] == "query" else DOC_INSTRUCTION,
            "normalize": True,
            "device": str(next(self.parameters()).device),
        }
        found = [
            self.model.encode(**{kind: values}, **how)
            for kind, values in (("text", features["texts"]), ("audio", features["audio"]))
            if values
        ]
        features["sentence_embedding"] = torch.cat(found)
        return features

    def save(self, output_path, *args, **kwargs):
        Path(output_path, "config.json").write_text(json.dumps({"folder": self.folder}))


def load():
    """It as a model."""
    return SentenceTransformer(modules=[NaiveModule()], device="cpu")
