"""A stand-in for ALM2Vec with the architecture that its authors document (remote code).

Mel front-end -> Dasheng-style audio encoder in independent chunks of 10.08 s -> projector that joins five patches
-> Qwen2 decoder -> hidden state at the end-of-sequence token. `encode` accepts the calls that ALM2Vec's model card
shows and refuses every other, so that nothing built on it can come to depend on a guess.

The prompt's wording, the order of its parts and what `task` does to it are this stand-in's own. The card does not
say what ALM2Vec's are.
"""

import math
import wave
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's usual name
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, Qwen2Model
from transformers.utils import cached_file

from .configuration_alm2vec_tiny import ALM2VecTinyConfig

SAMPLING_RATE = 16_000
N_FFT = 512
HOP = 160
N_MELS = 64
AMIN = 1e-10
TOP_DB = 120.0
FRAMES_PER_PATCH = 4
PATCHES_PER_CHUNK = 252  # 1008 frames, 10.08 s
PATCHES_PER_TOKEN = 5

_ABSENT: Any = object()


def htk_mel_filterbank() -> np.ndarray:
    """Triangular HTK mel filters from 0 to 8000 Hz, peak 1: float32 [N_FFT // 2 + 1, N_MELS]."""
    top = 2595.0 * math.log10(1.0 + SAMPLING_RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, N_MELS + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, SAMPLING_RATE / 2, N_FFT // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def read_wav(path: str) -> torch.Tensor:
    """The samples of a 16 kHz mono PCM16 WAV file: float32 [n] in [-1, 1)."""
    with wave.open(path, "rb") as file:
        layout = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if layout != (SAMPLING_RATE, 1, 2):
            raise ValueError(f"{path}: expected 16 kHz mono PCM16, got (rate, channels, bytes per sample) = {layout}")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32) / 32768.0)


class MelFrontEnd(nn.Module):
    """Waveforms to normalised log-mel frames; its constants are stored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.from_numpy(np.hanning(N_FFT + 1)[:-1].astype(np.float32)))
        self.register_buffer("filterbank", torch.from_numpy(htk_mel_filterbank()))
        self.norm = nn.BatchNorm2d(N_MELS)

    def forward(self, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """A list of [n_i] samples to frames [batch, N_MELS, longest] and frame counts, a list of int."""
        # Reflecting each clip at its own end, and flooring each at its own peak, keeps a clip's frames independent
        # of the clips beside it.
        padded = [F.pad(w[None], (N_FFT // 2, N_FFT // 2), mode="reflect")[0] for w in waveforms]
        frames = [1 + len(w) // HOP for w in waveforms]
        signal = nn.utils.rnn.pad_sequence(padded, batch_first=True)
        spectrum = torch.stft(signal, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        power = spectrum.abs().square()  # [batch, bins, time]
        decibels = 10.0 * torch.log10(torch.clamp(power.transpose(1, 2) @ self.filterbank, min=AMIN)).transpose(1, 2)
        counts = torch.tensor(frames, device=decibels.device)
        inside = torch.arange(decibels.shape[-1], device=decibels.device)[None, None] < counts[:, None, None]
        peak = decibels.masked_fill(~inside, -torch.inf).amax(dim=(1, 2), keepdim=True)
        decibels = torch.maximum(decibels, peak - TOP_DB)
        return self.norm(decibels[..., None])[..., 0], frames


class AudioBlock(nn.Module):
    """One pre-norm transformer block of the audio encoder."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, mlp)
        self.fc2 = nn.Linear(mlp, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[batch, length, width] to the same; `mask` is bool [batch, 1, 1, length] over keys, or None."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class AudioEncoder(nn.Module):
    """Log-mel frames to patches at 25 Hz; chunks of 10.08 s do not see one another."""

    def __init__(self, config: ALM2VecTinyConfig) -> None:
        super().__init__()
        width = config.audio_width
        self.front_end = MelFrontEnd()
        self.patch_embed = nn.Conv2d(1, width, (N_MELS, FRAMES_PER_PATCH), stride=(N_MELS, FRAMES_PER_PATCH))
        self.time_pos_embed = nn.Parameter(torch.zeros(1, width, 1, PATCHES_PER_CHUNK))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.blocks = nn.ModuleList(
            AudioBlock(width, config.audio_heads, config.audio_mlp) for _ in range(config.audio_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """A list of [n_i] samples to patches [batch, longest, width] and patch counts, a list of int."""
        mel, frames = self.front_end(waveforms)
        counts = [n // FRAMES_PER_PATCH for n in frames]
        patches = self.patch_embed(mel[:, None, :, : max(counts) * FRAMES_PER_PATCH])
        encoded = torch.zeros_like(patches).squeeze(2).transpose(1, 2).contiguous()
        for start in range(0, max(counts), PATCHES_PER_CHUNK):
            rows = [i for i, n in enumerate(counts) if n > start]
            lengths = [min(counts[i] - start, PATCHES_PER_CHUNK) for i in rows]
            chunk = patches[rows, :, :, start : start + max(lengths)]
            chunk = chunk + self.time_pos_embed[..., : max(lengths)] + self.freq_pos_embed
            x = chunk.squeeze(2).transpose(1, 2)
            mask = None
            if min(lengths) < max(lengths):
                keys = torch.arange(max(lengths), device=x.device)
                mask = (keys[None] < torch.tensor(lengths, device=x.device)[:, None])[:, None, None, :]
            for block in self.blocks:
                x = block(x, mask)
            encoded[rows, start : start + max(lengths)] = self.norm(x)
        return encoded, counts


class ALM2VecTinyModel(PreTrainedModel):
    """The stand-in; `encode` is its whole interface, as it is ALM2Vec's."""

    config_class = ALM2VecTinyConfig
    main_input_name = "text"
    _no_split_modules = ["AudioBlock", "Qwen2DecoderLayer"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: ALM2VecTinyConfig) -> None:
        super().__init__(config)
        text_width = config.text_config.hidden_size
        self.audio_encoder = AudioEncoder(config)
        self.audio_projector = nn.Sequential(
            nn.Linear(PATCHES_PER_TOKEN * config.audio_width, text_width), nn.GELU(), nn.Linear(text_width, text_width)
        )
        self.decoder = Qwen2Model(config.text_config)
        self._tokenizer: Tokenizer | None = None
        self.post_init()

    @torch.no_grad()
    def encode(
        self,
        *,
        text: list[str] = _ABSENT,
        audio: list[str] = _ABSENT,
        task: str,
        instruction: str,
        normalize: bool,
        device: str | torch.device,
    ) -> torch.Tensor:
        """Embed documents or queries.

        Args:
            text: list of str; may be left out where `audio` is given.
            audio: list of str, paths of 16 kHz mono PCM16 WAV files, paired with `text` by position.
            task: "query" or "document".
            instruction: what the vectors should capture.
            normalize: scale each vector to length 1.
            device: where the model is, as the card passes it.

        Returns:
            A tensor [items, hidden size] on `device`, in the model's dtype.
        """
        given = {name: value for name, value in (("text", text), ("audio", audio)) if value is not _ABSENT}
        self._refuse_what_the_card_does_not_show(given, task, instruction, normalize, device)
        n_items = len(next(iter(given.values())))
        audio_tokens, audio_counts = self._embed_audio(given["audio"]) if "audio" in given else (None, [0] * n_items)
        prompts = [
            self._prompt(task, instruction, n_audio, content)
            for n_audio, content in zip(audio_counts, given.get("text", [""] * n_items), strict=True)
        ]
        vectors = self._decode(prompts, audio_tokens)
        return F.normalize(vectors, dim=-1) if normalize else vectors

    def _refuse_what_the_card_does_not_show(
        self, given: dict[str, Any], task: Any, instruction: Any, normalize: Any, device: Any
    ) -> None:
        if not given:
            raise ValueError("give text, audio or both")
        for name, value in given.items():
            if not isinstance(value, list) or not value or not all(type(item) is str for item in value):
                raise TypeError(f"{name} must be a non-empty list of str, got {value!r}")
        if len({len(value) for value in given.values()}) > 1:
            raise ValueError("text and audio are paired by position: give as many of one as of the other")
        if task not in ("query", "document"):
            raise ValueError(f"task must be 'query' or 'document', got {task!r}")
        if type(instruction) is not str or not instruction:
            raise TypeError(f"instruction must be a non-empty str, got {instruction!r}")
        if type(normalize) is not bool:
            raise TypeError(f"normalize must be a bool, got {normalize!r}")
        if torch.device(device).type != self.device.type:
            raise ValueError(f"the model is on {self.device}, encode was called with device={device!r}")

    def _embed_audio(self, paths: list[str]) -> tuple[torch.Tensor, list[int]]:
        """Projected audio tokens of all clips, one after the other [sum of counts, hidden], and the counts."""
        patches, counts = self.audio_encoder([read_wav(path).to(self.device) for path in paths])
        tokens = [n // PATCHES_PER_TOKEN for n in counts]
        for path, n_tokens in zip(paths, tokens, strict=True):
            if n_tokens == 0:
                raise ValueError(f"{path}: too short, 0.19 s is the least that gives an audio token")
        joined = patches[:, : max(tokens) * PATCHES_PER_TOKEN].reshape(len(paths), max(tokens), -1)
        projected = self.audio_projector(joined)
        return torch.cat([projected[i, :n] for i, n in enumerate(tokens)]), tokens

    @property
    def _vocabulary(self) -> Tokenizer:
        if self._tokenizer is None:
            commit = getattr(self.config, "_commit_hash", None)
            tokenizer = Tokenizer.from_file(cached_file(self.name_or_path, "tokenizer.json", revision=commit))
            tokenizer.encode_special_tokens = True  # a user's text cannot spell a control token
            self._tokenizer = tokenizer
        return self._tokenizer

    def _prompt(self, task: str, instruction: str, n_audio_tokens: int, content: str) -> list[int]:
        vocabulary = self._vocabulary

        def control(name: str) -> int:
            return vocabulary.token_to_id(f"<|{name}|>")

        def words(text: str) -> list[int]:
            return vocabulary.encode(text, add_special_tokens=False).ids

        return [
            control(task),
            *words(instruction),
            control("separator"),
            *[control("audio")] * n_audio_tokens,
            *words(content),
            control("end"),
        ]

    def _decode(self, prompts: list[list[int]], audio_tokens: torch.Tensor | None) -> torch.Tensor:
        ids = nn.utils.rnn.pad_sequence([torch.tensor(p) for p in prompts], batch_first=True).to(self.device)
        ends = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = torch.arange(ids.shape[1], device=self.device)[None] < ends[:, None]
        embedded = self.decoder.get_input_embeddings()(ids)
        if audio_tokens is not None:
            is_audio = (ids == self._vocabulary.token_to_id("<|audio|>")) & mask
            embedded = embedded.masked_scatter(is_audio[..., None], audio_tokens)
        hidden = self.decoder(inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return hidden[torch.arange(len(prompts), device=self.device), ends - 1]
