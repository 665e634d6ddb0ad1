"""Checkpoint folders for tests: remote code that accepts only the calls the model card shows, and can be watched.

`write` makes a folder that transformers loads like any other. Its model turns each item into a vector that depends
on all that should matter (text, samples, task, instruction) and on nothing else, and reports every call to this
module, which a test can hook.
"""

import hashlib
import json
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

DIM = 16

# What tests hook into; `reset` is called before every test.
loads: list[Any] = []
calls: list[dict[str, Any]] = []
on_encode: Callable[[Any, dict[str, Any]], Any] | None = None
in_constructor: Callable[[], Any] | None = None  # called by code that a test changes to call it
overlapping = threading.Event()
_inside = threading.Lock()

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

import fake_checkpoints


class FakeConfig(PretrainedConfig):
    model_type = "alm2vec_fake"


class FakeModel(PreTrainedModel):
    config_class = FakeConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(1))
        self.cycle = [self]  # real models hold such cycles
        self.post_init()

    @classmethod
    def from_pretrained(cls, folder, **keywords):
        fake_checkpoints.loads.append(folder)
        return super().from_pretrained(folder, **keywords)

    def _init_weights(self, module):
        pass

    def encode(self, *args, **keywords):
        assert not args, "the card passes keywords only"
        assert not torch.is_grad_enabled(), "gradients would keep every activation in memory"
        return fake_checkpoints.answer(self, keywords)
"""


def write(folder: Path, code: str = CODE, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modeling_fake.py").write_text(code)
    auto_map = {"AutoConfig": "modeling_fake.FakeConfig", "AutoModel": "modeling_fake.FakeModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "alm2vec_fake", "auto_map": auto_map, **config}))
    save_file({"scale": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reset() -> None:
    global on_encode
    loads.clear()
    calls.clear()
    overlapping.clear()
    on_encode = None


def loaded(encoder: Any) -> None:
    """Load the encoder's model and forget the calls that probed it."""
    assert encoder.dim == DIM
    calls.clear()


def answer(model: Any, keywords: dict[str, Any]) -> Any:
    refuse_what_the_card_does_not_show(keywords)
    calls.append(keywords)
    alone = _inside.acquire(blocking=False)
    if not alone:
        overlapping.set()
    try:
        if on_encode is not None:
            replaced = on_encode(model, keywords)
            if replaced is not None:
                return replaced
        return vectors(keywords)
    finally:
        if alone:
            _inside.release()


def refuse_what_the_card_does_not_show(keywords: dict[str, Any]) -> None:
    names = set(keywords)
    assert {"task", "instruction", "normalize", "device"} <= names, f"not explicit: {sorted(names)}"
    assert names <= {"text", "audio", "task", "instruction", "normalize", "device"}, f"unknown: {sorted(names)}"
    lists = [keywords[name] for name in ("text", "audio") if name in keywords]
    assert lists, "neither text nor audio"
    for items in lists:
        assert type(items) is list
        assert items
        assert all(type(item) is str and item for item in items), items
    assert len({len(items) for items in lists}) == 1, "text and audio are paired by position"
    assert keywords["task"] in ("query", "document")
    assert type(keywords["instruction"]) is str
    assert keywords["instruction"]
    assert type(keywords["normalize"]) is bool
    assert type(keywords["device"]) is str
    torch.device(keywords["device"])
    for path in keywords.get("audio", []):
        with wave.open(path, "rb") as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            assert file.getnframes() >= 3_200


def vectors(keywords: dict[str, Any]) -> torch.Tensor:
    rows = len(keywords.get("text") or keywords["audio"])
    parts = [_parts(keywords, row) for row in range(rows)]
    return torch.stack([vector_of(*p) for p in parts])


def _parts(keywords: dict[str, Any], row: int) -> tuple[str, ...]:
    text = keywords["text"][row] if "text" in keywords else ""
    sound = ""
    if "audio" in keywords:
        sound = hashlib.sha256(Path(keywords["audio"][row]).read_bytes()).hexdigest()
    return text, sound, keywords["task"], keywords["instruction"]


def vector_of(text: str, sound: str, task: str, instruction: str) -> torch.Tensor:
    seed = hashlib.sha256("\0".join((text, sound, task, instruction)).encode()).digest()
    return torch.from_numpy(np.random.default_rng(list(seed)).standard_normal(DIM).astype(np.float32))


def expected(text: str, task: str, instruction: str) -> np.ndarray:
    """The vector that a text must get, length 1, computed without the package."""
    vector = vector_of(text, "", task, instruction)
    return torch.nn.functional.normalize(vector, dim=-1).numpy()
