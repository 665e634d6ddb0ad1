"""What the full-size model has to calculate, and what the device can: the two sides of a share of the peak."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from alm2vec_integrations.tiny.writer import Shape

PATCHES_PER_CHUNK, PATCHES_PER_TOKEN, FRAMES_PER_PATCH, HOP = 252, 5, 4, 160


def operations(shape: Shape, seconds: float, text_tokens: int) -> float:
    """Floating-point operations for one item, a multiplication and an addition being two.

    Matrix products and attention, without what padding adds: the decoder's is causal and counted by half.
    """
    patches = (1 + round(seconds * 16_000) // HOP) // FRAMES_PER_PATCH if seconds else 0
    audio_tokens = patches // PATCHES_PER_TOKEN
    width, mlp = shape.audio_width, shape.audio_mlp
    chunks = [min(PATCHES_PER_CHUNK, patches - start) for start in range(0, patches, PATCHES_PER_CHUNK)]
    encoder = sum(
        shape.audio_depth * (2 * n * (4 * width * width + 2 * width * mlp) + 4 * n * n * width) for n in chunks
    )
    text = shape.text_config
    hidden, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    key_value = hidden * text["num_key_value_heads"] // text["num_attention_heads"]
    projector = 2 * audio_tokens * (PATCHES_PER_TOKEN * width * hidden + hidden * hidden)
    tokens = audio_tokens + text_tokens
    products = 2 * tokens * (2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * inner)
    return encoder + projector + layers * (products + 2 * tokens * tokens * hidden)


def total(shape: Shape, lengths: Iterable[float], text_tokens: int) -> float:
    """Of many items."""
    return sum(operations(shape, seconds, text_tokens) for seconds in lengths)


def matmul_peak(size: int = 8192, repeats: int = 20) -> float:
    """Operations per second of a bfloat16 matrix product of random numbers on this device; the best of three."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, repeats = (size, repeats) if device == "cuda" else (512, 2)
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(3):
        one @ other
        _settle(device)
        began = time.perf_counter()
        for _ in range(repeats):
            one @ other
        _settle(device)
        best = max(best, 2 * size**3 * repeats / (time.perf_counter() - began))
    return best


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
