"""Write a checkpoint folder of the stand-in architecture, at any size, with random weights.

The bundled checkpoint has the shape `BUNDLED` and was trained by `examples/train_tiny`; tests write their own; `FULL`
has the shape of MiDashengLM-7B, for measurements on a GPU.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from . import FOLDER

CONTROL_TOKENS = ("<|pad|>", "<|end|>", "<|separator|>", "<|audio|>", "<|query|>", "<|document|>")
CONFIG_CLASS = "configuration_alm2vec_tiny.ALM2VecTinyConfig"
MODEL_CLASS = "modeling_alm2vec_tiny.ALM2VecTinyModel"
CODE_FILES = ("configuration_alm2vec_tiny.py", "modeling_alm2vec_tiny.py")


@dataclass(frozen=True)
class Shape:
    """Sizes of one checkpoint; the fields are those of the remote configuration class."""

    audio_width: int
    audio_depth: int
    audio_heads: int
    audio_mlp: int
    text_config: dict[str, Any] = field(hash=False)


BUNDLED = Shape(
    audio_width=128,
    audio_depth=4,
    audio_heads=4,
    audio_mlp=512,
    text_config={
        "hidden_size": 160,
        "intermediate_size": 416,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
    },
)

# Dasheng-0.6B and the Qwen2.5-Omni thinker's text model: arXiv 2508.03983 and the public configurations.
FULL = Shape(
    audio_width=1280,
    audio_depth=32,
    audio_heads=16,
    audio_mlp=5120,
    text_config={
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
    },
)


def build_on_meta(shape: Shape) -> PreTrainedModel:
    """The architecture at `shape` without memory for its weights (torch's meta device)."""
    model_class = get_class_from_dynamic_module(MODEL_CLASS, str(FOLDER))
    with torch.device("meta"):
        model: PreTrainedModel = model_class(model_class.config_class(**asdict(shape)))
    return model


def write_checkpoint(
    folder: Path | str,
    shape: Shape = BUNDLED,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = 5 * 10**9,
    device: str | torch.device = "cpu",
) -> Path:
    """Write config, code, tokenizer and random weights, one shard in memory at a time.

    Args:
        folder: created if it does not exist; files of the same names are overwritten.
        shape: the sizes; `BUNDLED` or `FULL`, or others.
        seed: two folders written from one seed and shape hold the same weights.
        dtype: of the stored parameters; buffers are stored in float32.
        max_shard_bytes: a new safetensors file is begun past this size.
        device: where random numbers are drawn; another device draws others.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_on_meta(shape)
    (folder / "config.json").write_text(json.dumps(_config_json(shape, dtype), indent=2) + "\n")
    for name in CODE_FILES:
        if (FOLDER / name).resolve() != (folder / name).resolve():
            shutil.copyfile(FOLDER / name, folder / name)
    _write_tokenizer(folder)
    _write_weights(folder, model, seed, dtype, max_shard_bytes, torch.device(device))
    return folder


def _config_json(shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "architectures": ["ALM2VecTinyModel"],
        "auto_map": {"AutoConfig": CONFIG_CLASS, "AutoModel": MODEL_CLASS},
        "model_type": "alm2vec_tiny",
        # transformers 4 reads this name; 5 reads it too and calls it dtype.
        "torch_dtype": str(dtype).removeprefix("torch."),
        **asdict(shape),
    }


def _write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges: every text is spelled byte by byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*CONTROL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|pad|>",
        "eos_token": "<|end|>",
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _write_weights(
    folder: Path, model: PreTrainedModel, seed: int, dtype: torch.dtype, max_shard_bytes: int, device: torch.device
) -> None:
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    constants = _stored_constants(model)
    parameters = dict(model.named_parameters())
    shards: list[list[str]] = [[]]
    sizes: dict[str, int] = {}
    filled = 0
    for name, tensor in model.state_dict().items():
        sizes[name] = tensor.numel() * (dtype.itemsize if name in parameters else tensor.element_size())
        if shards[-1] and filled + sizes[name] > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += sizes[name]

    weight_map = {}
    for number, names in enumerate(shards, start=1):
        tensors = {
            name: _draw(name, parameters[name], seed, device).to(dtype).cpu() if name in parameters else constants[name]
            for name in names
        }
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors makes it readable by its owner alone
        weight_map.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _stored_constants(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The values of the buffers that the checkpoint stores: the mel front-end's."""
    front_end = type(model.audio_encoder.front_end)()
    # Typical mean and spread, in dB, of the log-mel power of recordings with peaks near full scale.
    front_end.norm.running_mean.fill_(-25.0)
    front_end.norm.running_var.fill_(20.0**2)
    return {f"audio_encoder.front_end.{name}": value.clone() for name, value in front_end.named_buffers()}


def _draw(name: str, parameter: torch.Tensor, seed: int, device: torch.device) -> torch.Tensor:
    """One parameter's random value; it depends on its name and the seed, not on the order of drawing."""
    if parameter.ndim == 1:
        return torch.full(parameter.shape, 1.0 if name.endswith("weight") else 0.0, device=device)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()) + seed)
    is_table = name.endswith(("embed_tokens.weight", "pos_embed"))
    # Layers keep the variance of their inputs; a small table leaves the last hidden state to what was attended to.
    scale = 0.02 if is_table else math.prod(parameter.shape[1:]) ** -0.5
    return torch.randn(parameter.shape, generator=generator, device=device) * scale
