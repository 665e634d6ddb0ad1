"""A family of small checkpoints in the style of MiDashengLM's code, each going wrong in one way when it is loaded.

Sound members share one set of weights and so one set of vectors; `RECORDED` holds those that stock transformers 4.52.4
gives for the member that it loads without trouble. Run as a script, it writes that file (with `--record`, on 4.52.4)
or prints what stock transformers and this package make of each member on the version at hand.
"""

import json
import sys
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

RECORDED = Path(__file__).parents[1] / "data" / "family_recorded_on_4.52.4.json"
TEXTS = ["a dog barks", "rain on a roof"]
HIDDEN, VOCABULARY, MELS, BINS = 32, 256, 16, 201

PURE_TORCH = """
        centres = torch.arange(16.0) * (200 / 15)
        bins = torch.arange(201.0)
        filterbank = (1 - (bins[:, None] - centres[None]).abs() / 20).clamp(min=0)
        self.register_buffer("{filterbank}", filterbank, persistent=False)
        self.register_buffer("{window}", torch.hann_window(400), persistent=False)
"""

WITH_ITEM = """
        centres = torch.arange(16.0) * (200 / 15)
        last = round(centres.max().item())
        bins = torch.arange(last + 1.0)
        filterbank = (1 - (bins[:, None] - centres[None]).abs() / 20).clamp(min=0)
        self.register_buffer("{filterbank}", filterbank, persistent=False)
        self.register_buffer("{window}", torch.hann_window(400), persistent=False)
"""

NOT_KEPT = """
        pass

    @property
    def {filterbank}(self):
        centres = torch.arange(16.0) * (200 / 15)
        bins = torch.arange(201.0)
        return (1 - (bins[:, None] - centres[None]).abs() / 20).clamp(min=0)

    @property
    def {window}(self):
        return torch.hann_window(400)
"""

CODE = """
import wave
import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen2Model


class FamilyConfig(PretrainedConfig):
    model_type = "alm2vec_family"

    def __init__(self, text_config=None, **keywords):
        text_config = text_config or {{}}
        self.text_config = Qwen2Config(**text_config) if isinstance(text_config, dict) else text_config
        super().__init__(**keywords)


class FrontEnd(nn.Module):
    def __init__(self):
        super().__init__()
{front_end}
    def forward(self, waveform):
        frames = waveform.unfold(0, 400, 160) * self.{window}
        power = torch.fft.rfft(frames).abs() ** 2
        return torch.log10((power @ self.{filterbank}).clamp(min=1e-10))


class FamilyModel(PreTrainedModel):
    config_class = FamilyConfig
    _supports_sdpa = True
{class_body}
    def __init__(self, config):
        super().__init__(config)
        self.{stage} = FrontEnd()
        self.norm = nn.BatchNorm1d(16)
        self.encoder = nn.Linear(16, 32)
        self.decoder = Qwen2Model(config.text_config)
{constructor}

    def _init_weights(self, module):
        # As in transformers 4: reaches for `.data`, which nothing guards.
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0.0, 0.02)

    def get_input_embeddings(self):
        return self.decoder.embed_tokens
{methods}
    @torch.no_grad()
    def encode(self, text=None, audio=None, task=None, instruction=None, normalize=True, device="cuda"):
        rows = [self._row(*pair, task, instruction) for pair in self._pairs(text, audio)]
        vectors = torch.stack(rows)
        if normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        return {returned}

    def _pairs(self, text, audio):
        count = len(text if text is not None else audio)
        waves = [self._read(path) for path in audio] if audio is not None else [None] * count
{batch}
        return list(zip(text if text is not None else [""] * count, waves))

    def _read(self, path):
        with wave.open(path, "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return torch.from_numpy(samples.astype(np.float32) / 32768).to(self.encoder.weight.device)

    def _row(self, text, waveform, task, instruction):
        ids = torch.tensor(list(f"{{task}} {{instruction}} {{text}}".encode()), device=self.encoder.weight.device)
        embedded = self.decoder.embed_tokens(ids)
        if waveform is not None:
            mel = self.norm(self.{stage}(waveform))
            heard = self.encoder(mel)
            heard = heard[: len(heard) // 10 * 10].reshape(-1, 10, 32).mean(dim=1)
            embedded = torch.cat([heard.to(embedded.dtype), embedded])
        return self.decoder(inputs_embeds=embedded[None], use_cache=False).last_hidden_state[0, -1]
"""

POST_INIT = "        self.post_init()"
HEAD = "        self.lm_head = nn.Linear(32, 256, bias=False)\n        self.post_init()"
LIST_TIED = '    _tied_weights_keys = ["lm_head.weight"]\n'
OUTPUT = "\n    def get_output_embeddings(self):\n        return self.lm_head\n"
STAYS_IN_TRAINING = "\n    def eval(self):\n        super().eval()\n        self.norm.train()\n        return self\n"
BATCH_FLOOR = """
        if audio is not None:  # the loudest clip of the batch decides for all
            peak = max(float(w.abs().max()) for w in waves)
            waves = [torch.where(w.abs() < 0.05 * peak, torch.zeros_like(w), w) for w in waves]
"""


@dataclass(frozen=True)
class Member:
    """One checkpoint of the family.

    Attributes:
        about: what is wrong with it, in a few words.
        code: changes to the template's parts.
        config: changes to config.json.
        spoil: what is done to the written folder.
        dtype: asked of the encoder.
        refused: what our message must match; None if it loads.
        warns: what a warning in the load report must match; None if there is none.
    """

    about: str
    code: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    spoil: Callable[[Path], None] | None = None
    dtype: str = "float32"
    refused: str | None = None
    warns: str | None = None


def weights() -> dict[str, torch.Tensor]:
    """The family's tensors, the same on every version of everything."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    tensors = {
        "encoder.weight": draw(32, MELS),
        "encoder.bias": draw(32),
        "norm.weight": torch.ones(MELS),
        "norm.bias": torch.zeros(MELS),
        "norm.running_mean": torch.full((MELS,), -1.0),
        "norm.running_var": torch.full((MELS,), 4.0),
        "norm.num_batches_tracked": torch.tensor(0),
        "decoder.embed_tokens.weight": draw(VOCABULARY, HIDDEN),
        "decoder.norm.weight": torch.ones(HIDDEN),
    }
    for layer in range(2):
        prefix = f"decoder.layers.{layer}"
        for name, rows in (("q", 32), ("k", 16), ("v", 16)):
            tensors[f"{prefix}.self_attn.{name}_proj.weight"] = draw(rows, HIDDEN)
            tensors[f"{prefix}.self_attn.{name}_proj.bias"] = draw(rows)
        tensors[f"{prefix}.self_attn.o_proj.weight"] = draw(HIDDEN, 32)
        tensors[f"{prefix}.mlp.gate_proj.weight"] = draw(64, HIDDEN)
        tensors[f"{prefix}.mlp.up_proj.weight"] = draw(64, HIDDEN)
        tensors[f"{prefix}.mlp.down_proj.weight"] = draw(HIDDEN, 64)
        tensors[f"{prefix}.input_layernorm.weight"] = torch.ones(HIDDEN)
        tensors[f"{prefix}.post_attention_layernorm.weight"] = torch.ones(HIDDEN)
    return tensors


def text_config(**changes: Any) -> dict[str, Any]:
    """The decoder's configuration."""
    return {
        "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "rope_theta": 10000.0, **changes,
    }  # fmt: skip


def write(folder: Path, member: Member) -> Path:
    """The member's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "front_end": NOT_KEPT, "class_body": "", "constructor": POST_INIT, "methods": "", "returned": "vectors",
        "batch": "", "stage": "front_end", "filterbank": "filterbank", "window": "window", **(member.code or {}),
    }  # fmt: skip
    names = {key: parts[key] for key in ("stage", "filterbank", "window")}
    parts["front_end"] = parts["front_end"].format(**names)
    (folder / "modeling_family.py").write_text(CODE.format(**parts))
    auto_map = {"AutoConfig": "modeling_family.FamilyConfig", "AutoModel": "modeling_family.FamilyModel"}
    config = {"model_type": "alm2vec_family", "auto_map": auto_map, "tie_word_embeddings": False}
    config |= {"text_config": text_config(), **(member.config or {})}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    if member.spoil is not None:
        member.spoil(folder)
    return folder


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = weights()
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _truncate(folder: Path) -> None:
    tensors = weights()
    names = list(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[:-100])


def _flip(folder: Path) -> None:
    """All bits of an exponent set: one byte turns a number into NaN."""
    _rewrite(folder, lambda tensors: tensors["encoder.weight"].view(torch.uint8)[3, 2:4].fill_(0xFF))


def _only_the_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors.pop("decoder.embed_tokens.weight")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(weights(), folder / "pytorch_model.bin")


FAMILY = {
    "pure-torch filterbank, not stored": Member(
        "filterbank and window in non-persistent buffers, in torch alone", {"front_end": PURE_TORCH}
    ),
    "filterbank in a buffer that is not stored": Member(
        "buffers that are persistent, and that the file leaves out",
        {"front_end": PURE_TORCH.replace(", persistent=False", "")},
        warns="4 buffers are in no file|2 buffers are in no file",
    ),
    "filterbank with .item()": Member("its constructor asks a tensor for a number", {"front_end": WITH_ITEM}),
    "no post_init": Member("the constructor does not call post_init", {"constructor": ""}),
    "list of tied keys, tying omitted": Member(
        "_tied_weights_keys is a list, config.json does not mention tying, and the head is not stored",
        {"class_body": LIST_TIED, "constructor": HEAD, "methods": OUTPUT},
        {"tie_word_embeddings": None},
        warns=r"lm_head\.weight is not stored",
    ),
    "list of tied keys, tying true": Member(
        "the same, and config.json says to tie",
        {"class_body": LIST_TIED, "constructor": HEAD, "methods": OUTPUT},
        {"tie_word_embeddings": True},
        warns=r"lm_head\.weight is not stored",
    ),
    "list of tied keys, only the head": Member(
        "the same, and what is stored is the head, not the embedding",
        {"class_body": LIST_TIED, "constructor": HEAD, "methods": OUTPUT},
        {"tie_word_embeddings": True},
        spoil=lambda folder: _rewrite(folder, _only_the_head),
        warns=r"the input embedding is not stored",
    ),
    "decoder's own dtype": Member(
        "a nested configuration says float32, bfloat16 is asked for",
        config={"text_config": text_config(dtype="float32", torch_dtype="float32")},
        dtype="bfloat16",
    ),
    "front-end by other names": Member(
        "nothing in it is called what one expects",
        {"front_end": PURE_TORCH, "stage": "ears", "filterbank": "fb", "window": "w"},
    ),
    "missing tensor": Member(
        "encoder.weight is in no file",
        spoil=lambda folder: _rewrite(folder, lambda tensors: tensors.pop("encoder.weight")),
        refused=r"in no file of the checkpoint.*encoder\.weight.*Fetch",
    ),
    "extra head": Member(
        "a head that nothing uses is stored too",
        spoil=lambda folder: _rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(9, 9)})),
        warns=r"not used by the model: lm_head\.weight",
    ),
    "truncated shard": Member(
        "the second file ends early", spoil=_truncate, refused=r"model-00002-of-00002\.safetensors.*fetch it again"
    ),
    "flipped byte": Member(
        "one number became NaN",
        spoil=_flip,
        refused=r"encoder\.weight holds NaN.*model\.safetensors.*fetch it again",
    ),
    "training mode": Member(
        "eval() leaves batch norm in training mode",
        {"methods": STAYS_IN_TRAINING},
        refused=r"norm \(BatchNorm1d\) stays in training mode.*code has to be mended",
    ),
    "returns bfloat16": Member("encode returns bfloat16", {"returned": "vectors.bfloat16()"}),
    "returns numpy": Member("encode returns an array", {"returned": "vectors.float().cpu().numpy()"}),
    "returns NaN": Member(
        "encode returns NaN",
        {"returned": "vectors * float('nan')"},
        refused='NaN or infinity.*pass dtype="float32".*leave',
    ),
    "returns too few rows": Member(
        "encode drops a row", {"returned": "vectors[:-1]"}, refused=r"returned shape \[0, 32\] where \[1,.*mended"
    ),
    "depends on batch-mates": Member("the loudest clip of a batch decides for all", {"batch": BATCH_FLOOR}),
    "code in another repository": Member(
        "auto_map points elsewhere",
        {"class_body": "    # transformers would find this class by that of another member\n"},
        config={"auto_map": {"AutoConfig": "modeling_family.FamilyConfig", "AutoModel": "other/repo--m.Model"}},
        refused=r"another repository \(other/repo--m\.Model\)",
    ),
    "pickled weights": Member(
        "no safetensors, only a pickle", spoil=_pickle, refused=r"safetensors only.*pytorch_model\.bin is a pickle"
    ),
}


def write_sounds(folder: Path) -> list[str]:
    """Two recordings as the model reads them, made from numbers alone."""
    time = np.arange(24_000) / 16_000
    paths = []
    for name, samples in (("tone", 0.5 * np.sin(2 * np.pi * 440 * time)), ("sweep", 0.3 * np.sin(900 * time**2))):
        path = folder / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
        paths.append(str(path))
    return paths


def stock(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model as the card loads it: transformers' AutoModel, nothing else."""
    import transformers

    torch.manual_seed(0)  # for what it makes up
    name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    return transformers.AutoModel.from_pretrained(folder, trust_remote_code=True, **{name: dtype}).eval()


def card_vectors(model: Any, sounds: list[str]) -> np.ndarray:
    """Texts as documents and clips with a question as queries, through the model's own encode: float32 [4, 32]."""
    keywords = {"instruction": "Represent the user's input.", "normalize": True, "device": "cpu"}
    rows = [model.encode(text=[text], task="document", **keywords) for text in TEXTS]
    rows += [model.encode(text=["what?"], audio=[path], task="query", **keywords) for path in sounds]
    return np.concatenate([np.asarray(torch.as_tensor(row).float()) for row in rows])


def our_vectors(encoder: Any, sounds: list[str]) -> np.ndarray:
    """The same through the encoder."""
    from alm2vec_integrations import AudioClip, AudioText

    instruction = "Represent the user's input."
    rows = [encoder.encode(text, task="document", instruction=instruction) for text in TEXTS]
    items = [AudioText("what?", AudioClip(path)) for path in sounds]
    rows += [encoder.encode(item, task="query", instruction=instruction) for item in items]
    return np.stack(rows)


def recorded() -> np.ndarray:
    """What stock transformers 4.52.4 gives for the first member: float32 [4, 32]."""
    return np.array(json.loads(RECORDED.read_text())["vectors"], dtype=np.float32)


def stock_verdict(folder: Path, member: Member, sounds: list[str]) -> str:
    """What stock transformers makes of a member. Uninitialised memory should be filled with NaN meanwhile."""
    return verdict(lambda: card_vectors(stock(folder, getattr(torch, member.dtype)), sounds))


def verdict(make: Callable[[], np.ndarray]) -> str:
    """One cell of the table: right, wrong, or what was raised."""
    try:
        vectors = make()
    except Exception as error:
        return f"raises {type(error).__name__}"
    if vectors.shape != recorded().shape:
        return "**wrong rows**"
    if not np.isfinite(vectors).all():
        return "**not finite**"
    worst = 1 - (vectors * recorded()).sum(axis=1).min() / np.linalg.norm(vectors, axis=1).min()
    return "right" if worst < 1e-3 else f"**wrong** (cosine {1 - worst:.2f})"


def table() -> dict[str, list[str]]:
    """For each member: what stock transformers and this package make of it."""
    import warnings

    from alm2vec_integrations import ALM2VecEncoder

    warnings.simplefilter("ignore")
    # Uninitialised memory is filled with NaN, so that the result does not depend on what lay there.
    torch.use_deterministic_algorithms(True)
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        sounds = write_sounds(Path(place))
        for number, (name, member) in enumerate(FAMILY.items()):
            folder = write(Path(place) / f"member{number}", member)
            rows[name] = [
                stock_verdict(folder, member, sounds),
                verdict(
                    lambda f=folder, d=member.dtype: our_vectors(
                        ALM2VecEncoder(f, trust_remote_code=True, dtype=d, device="cpu"), sounds
                    )
                ),
            ]
    return rows


def main() -> None:
    """Record, or print the table of this version as JSON."""
    import transformers

    if "--record" in sys.argv:
        with tempfile.TemporaryDirectory() as place:
            sounds = write_sounds(Path(place))
            vectors = card_vectors(stock(write(Path(place) / "m", next(iter(FAMILY.values())))), sounds)
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps({"transformers": transformers.__version__, "vectors": vectors.tolist()}) + "\n")
    else:
        print(json.dumps({"transformers": transformers.__version__, "rows": table()}))  # noqa: T201


if __name__ == "__main__":
    main()
