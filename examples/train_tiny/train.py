"""Train alm2vec-tiny: contrastive, on procedural scenes that are mixed on the device as they are needed.

python -m train_tiny.speech SPEECH                       once: renders the voices
python -m train_tiny.train SPEECH OUT --steps 6000       minutes on one GPU
python -m train_tiny.train SPEECH OUT --steps 3 --batch 24 --events 2 --textures 1      a rehearsal on a CPU
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's usual name
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModel

from alm2vec_integrations.tiny.writer import BUNDLED, CONTROL_TOKENS, write_checkpoint

from . import mixing, wording
from .batches import FRAMES_PER_TOKEN, Batch, Batches

WARM_UP = 300
COLDEST = 1 / 50
"""The lowest temperature that may be learnt."""


def write_tokenizer(path: Path) -> None:
    """Byte-level BPE, its merges learnt from the training wordings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BUNDLED.text_config["vocab_size"],
        special_tokens=[AddedToken(token, special=True) for token in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(wording.every_text(), trainer)
    tokenizer.save(str(path))


class Trained(nn.Module):
    """The remote code's model with a batched forward pass and a temperature.

    Args:
        model: whose parts are trained.
        audio_token: its id.
    """

    def __init__(self, model: Any, audio_token: int) -> None:
        super().__init__()
        self.model, self._audio_token = model, audio_token
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.05)))

    def hear(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips of one length [n, frames] to audio tokens [n, tokens, width]."""
        patches, _ = self.model.audio_encoder(list(clips))
        tokens = clips.shape[1] // FRAMES_PER_TOKEN
        joined = patches[:, : tokens * (patches.shape[1] // tokens)][:, : tokens * 5].reshape(len(clips), tokens, -1)
        heard: torch.Tensor = self.model.audio_projector(joined)
        return heard

    def embed(self, prompts: tuple[torch.Tensor, torch.Tensor], heard: torch.Tensor | None = None) -> torch.Tensor:
        """Vectors of length 1 [n, width] of prompts with ids [n, w] and lengths [n]."""
        ids, lengths = prompts
        embedded = self.model.decoder.get_input_embeddings()(ids)
        mask = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        if heard is not None:
            is_audio = (ids == self._audio_token) & mask
            embedded = embedded.masked_scatter(is_audio[..., None], heard.to(embedded.dtype))
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            answered = self.model.decoder(inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False)
        hidden = answered.last_hidden_state
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return F.normalize(last.float(), dim=-1)

    def losses(self, batch: Batch, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Caption and clip, question and answer, clip and clip under one question."""
        heard = self.hear(clips)
        rounds = len(batch.meaning) // len(clips)
        with_audio = self.embed(_joined(batch.audio, batch.asked), heard.repeat(1 + rounds, 1, 1))
        texts = self.embed(_joined(batch.captions, batch.answers))
        size = len(clips)
        audio, asked = with_audio[:size], with_audio[size:]
        captions, answers = texts[:size], texts[size:]
        scale = self.scale.exp().clamp(max=1 / COLDEST)
        same = batch.meaning[:, None] == batch.meaning[None]
        alike = same & (batch.aspect[:, None] == batch.aspect[None])
        comparable = (batch.aspect[:, None] == batch.aspect[None]) & (batch.aspect[:, None] >= 0)
        itself = torch.eye(len(asked), dtype=torch.bool, device=asked.device)
        return {
            "caption": _contrast(scale * captions @ audio.T, batch.means),
            "answer": _contrast(scale * asked @ answers.T, same),
            "alike": _one_way(scale * asked @ asked.T, alike & comparable & ~itself, comparable & ~itself),
        }


def _joined(*prompts: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(ids.shape[1] for ids, _ in prompts)
    ids = torch.cat([F.pad(ids, (0, width - ids.shape[1])) for ids, _ in prompts])
    return ids, torch.cat([lengths for _, lengths in prompts])


def _one_way(logits: torch.Tensor, right: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy to an equal share for everything that is right; rows in which nothing is are left out."""
    if among is not None:
        logits = logits.masked_fill(~among, -1e4)
    shares = right.float()
    rows = shares.sum(1)
    loss = -(shares * F.log_softmax(logits, dim=1)).sum(1)[rows > 0] / rows[rows > 0]
    return loss.mean() if len(loss) else logits.sum() * 0


def _contrast(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return 0.5 * (_one_way(logits, right) + _one_way(logits.T, right.T))


def _to(batch: Batch, device: str) -> Batch:
    moved = {
        name: tuple(part.to(device, non_blocking=True) for part in value)
        if isinstance(value, tuple)
        else value.to(device)
        for name, value in vars(batch).items()
        if name not in ("plans", "frames")
    }
    return Batch(plans=batch.plans, frames=batch.frames, **moved)


def _set_statistics(model: Any, bank: mixing.Bank, loader: Any, generator: torch.Generator) -> None:
    """Give the front-end's batch norm the mean and spread of training clips, and freeze them."""
    front_end, found = model.audio_encoder.front_end, []
    norm, front_end.norm = front_end.norm, nn.Identity()
    with torch.no_grad():
        for _, batch in zip(range(4), loader, strict=False):
            clips = mixing.wear(mixing.mix(batch.plans, bank, batch.frames), generator)
            found.append(front_end(list(clips))[0].transpose(0, 1).flatten(1))
    decibels = torch.cat(found, dim=1)
    front_end.norm = norm
    norm.running_mean.copy_(decibels.mean(1))
    norm.running_var.copy_(decibels.var(1))
    for parameter in front_end.parameters():
        parameter.requires_grad_(False)


def train(arguments: argparse.Namespace) -> None:
    """Write a trained checkpoint folder to `arguments.out`."""
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    device, out = arguments.device, arguments.out
    began = time.time()
    write_checkpoint(out, BUNDLED, seed=arguments.seed)
    write_tokenizer(out / "tokenizer.json")
    bank = mixing.bank("train", arguments.speech, arguments.events, arguments.textures)
    print(f"bank of {len(bank.frames)} + {len(bank.background)} sounds in {time.time() - began:.0f} s", flush=True)
    data = Batches(bank.without_sounds(), out / "tokenizer.json", arguments.batch, arguments.seed)
    workers = max(0, min(14, (os.cpu_count() or 1) - 1)) if device != "cpu" else 0
    loader = iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers))
    bank = bank.to(device)
    generator = torch.Generator(device).manual_seed(arguments.seed)
    model = AutoModel.from_pretrained(out, trust_remote_code=True, dtype=torch.float32).to(device).train()
    _set_statistics(model, bank, loader, generator)
    model.audio_encoder.front_end.eval()
    trained = Trained(model, CONTROL_TOKENS.index("<|audio|>")).to(device)
    matrices = [p for p in trained.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in trained.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98), fused=device != "cpu")
    average = [p.detach().clone() for p in (*matrices, *others)]
    began, shown = time.time(), 0.0
    for step in range(arguments.steps):
        spent = (time.time() - began) / arguments.seconds
        if spent >= 1:
            print(f"stopped after {step} steps: {arguments.seconds} s are over", flush=True)
            break
        share = max(step / arguments.steps, spent)
        rate = arguments.rate * min(1, (step + 1) / WARM_UP, 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = _to(next(loader), device)
        clips = mixing.wear(mixing.mix(batch.plans, bank, batch.frames), generator)
        losses = trained.losses(batch, clips)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        keep = min(0.998, 1 - 1 / (step + 2))
        torch._foreach_lerp_(average, [p.detach() for p in (*matrices, *others)], 1 - keep)
        if time.time() - shown > 15 or step + 1 == arguments.steps:
            shown = time.time()
            said = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(
                f"step {step}: {said}, scale {trained.scale.exp().item():.1f}, {time.time() - began:.0f} s", flush=True
            )
    with torch.no_grad():
        for parameter, mean in zip((*matrices, *others), average, strict=True):
            parameter.copy_(mean)
    save(model, out)


def save(model: Any, out: Path) -> None:
    """The weights in float16, buffers in float32, and a configuration that says so."""
    tensors = {n: t.detach().cpu() for n, t in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    half = {n: (t.half() if n in parameters else t).contiguous() for n, t in tensors.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long, the rate having fallen by then")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--events", type=int, default=160, help="sounds of each countable kind")
    parser.add_argument("--textures", type=int, default=60, help="sounds of every other kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())
