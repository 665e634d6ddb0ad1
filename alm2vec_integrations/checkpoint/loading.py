"""Load a checkpoint through transformers, check it against its files, and put it on its device."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tiny
from ..errors import ALM2VecError, ALM2VecWarning, CheckpointError
from .configuration import Configuration
from .report import LoadReport
from .resolving import ResolvedCheckpoint, resolve

if TYPE_CHECKING:
    from .construction import Constructed
    from .weights import StoredWeights

logger = logging.getLogger(__name__)

MOST_DRIFT = 0.01
"""1 - cosine between a probe in lower precision and in float32, above which float32 is used. The parts that stay in
float32 keep a sound model well under it (`alm2vec doctor` prints what yours has)."""

# transformers copies remote code into a shared folder and imports it, and loading changes transformers and torch for
# a while: not safe in two threads at once.
_loading = threading.Lock()
_forked_while_loading = False
_warned_of_tiny = False


def _note_fork() -> None:
    global _loading, _forked_while_loading
    # Loading changes transformers and torch for a while, and in the child nobody changes them back.
    _forked_while_loading = _forked_while_loading or _loading.locked()
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to encode.

    Attributes:
        model: the remote code's object.
        device: of its parameters, as `encode` is told.
        dim: width of its vectors.
        report: how it was loaded.
    """

    model: Any
    device: str
    dim: int
    report: LoadReport


def load(configuration: Configuration) -> LoadedModel:
    """Find, load and check a model.

    Raises:
        CheckpointError: it cannot be found, is not trusted, or does not load as a model of this kind.
        ModelContractError: it loads, and answers a first call in a way that its card rules out.
    """
    if _forked_while_loading:
        raise CheckpointError(
            f"{configuration.model}: this process was forked while its parent was loading a model, and cannot load "
            "one: load before forking, or start processes by spawn"
        )
    with _loading:
        return _load(configuration)


def _load(configuration: Configuration) -> LoadedModel:
    from .construction import real_buffers
    from .precision import dtypes_by_part
    from .verification import attention_of, no_meta, verify_loaded, verify_mode
    from .weights import StoredWeights

    began = time.perf_counter()
    name = configuration.model
    checkpoint = resolve(
        name,
        revision=configuration.revision,
        token=configuration.token,
        cache_dir=configuration.cache_dir,
        local_files_only=configuration.local_files_only,
        trusted=configuration.trusted,
    )
    _warn_of_tiny(name)
    stored = StoredWeights(checkpoint.folder)
    model_class, config = _classes(checkpoint)
    quantized = "quantization_config" in configuration.model_kwargs
    model, constructed, missing = _from_pretrained(checkpoint, configuration, model_class, config, stored)
    model.eval()
    verify_mode(name, model)
    tie = checkpoint.config.get("tie_word_embeddings") is not False
    odd = _complete(name, model, constructed, stored, missing, tie=tie)
    checks = ["evaluation mode throughout"]
    no_meta(name, model)
    if configuration.verify != "off":
        with real_buffers(model_class, stored.widest_dtype) as again:
            model_class(copy.deepcopy(config))
        full = configuration.verify == "full"
        loaded = verify_loaded(name, model, stored, again, missing=missing, full=full, comparable=not quantized)
        checks += loaded.checks
        odd += loaded.warnings
    settled = _settle(model, name, configuration, stored, quantized, odd)
    verify_mode(name, model)  # again: the first calls may have changed it
    checks += settled.checks
    attention, eager = attention_of(model)
    tensors = [*model.parameters(), *model.buffers()]
    report = LoadReport(
        model=name,
        folder=str(checkpoint.folder),
        revision=checkpoint.revision,
        code=checkpoint.code,
        transformers=_transformers_version(),
        device=settled.device,
        dtype=settled.dtype,
        dtypes=dtypes_by_part(model),
        attention=attention,
        parameters=sum(p.numel() for p in model.parameters()),
        bytes=sum(t.numel() * t.element_size() for t in tensors),
        dim=settled.dim,
        drift=settled.drift,
        seconds=time.perf_counter() - began,
        checks=tuple(checks),
        warnings=(*odd, *eager),
    )
    logger.info("loaded %s", str(report).replace("\n", "; "))
    for warning in report.warnings:
        logger.warning("%s: %s", name, warning)
    return LoadedModel(model, settled.device, settled.dim, report)


def _classes(checkpoint: ResolvedCheckpoint) -> tuple[Any, Any]:
    """The remote model class and the checkpoint's configuration."""
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    folder = str(checkpoint.folder)
    _forget_other_code(checkpoint)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
        model_class = get_class_from_dynamic_module(checkpoint.model_class, folder, local_files_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.name}: its code could not be run with transformers {_transformers_version()}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(model_class, "encode", None)) or not callable(
        getattr(model_class, "from_pretrained", None)
    ):
        raise CheckpointError(
            f"{checkpoint.name}: {model_class.__name__} has no encode method, so this is not an ALM2Vec checkpoint"
        )
    return model_class, config


def _forget_other_code(checkpoint: ResolvedCheckpoint) -> None:
    """Unload modules that came from another folder of the same name.

    Until 5.1, transformers copies remote code to a folder named after the checkpoint's and imports it once; a helper
    module of the same name from another checkpoint would be used in this one's place.
    """
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not name.startswith("transformers_modules.") or not file or Path(file).name not in checkpoint.code:
            continue
        copied_to = Path(file).parent.name.replace("_hyphen_", "-").replace("_dot_", ".")
        if copied_to == checkpoint.folder.name:
            digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).is_file() else None
            if digest != checkpoint.code[Path(file).name]:
                del sys.modules[name]


def _from_pretrained(
    checkpoint: ResolvedCheckpoint, configuration: Configuration, model_class: Any, config: Any, stored: StoredWeights
) -> tuple[Any, Constructed, frozenset[str]]:
    """The model on the CPU in the dtype that it is stored in, its memory still the files' where that is possible."""
    import torch

    from .construction import real_buffers

    dtype = stored.widest_dtype
    if "quantization_config" in configuration.model_kwargs:
        dtype = stored.widest_dtype if configuration.dtype == "auto" else getattr(torch, configuration.dtype)
    # Renamed in 4.56; the old name is deprecated in 5.
    version = tuple(int(part) for part in _transformers_version().split(".")[:2])
    keywords = {"dtype" if version >= (4, 56) else "torch_dtype": dtype, **configuration.model_kwargs}
    try:
        with real_buffers(model_class, dtype) as constructed:
            model, info = model_class.from_pretrained(
                str(checkpoint.folder),
                config=config,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **keywords,
            )
    except ALM2VecError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.name}: transformers {_transformers_version()} could not load it: "
            f"{type(error).__name__}: {error}"
        ) from error
    return model, constructed, frozenset(info.get("missing_keys", ()))


def _complete(
    name: str, model: Any, constructed: Constructed, stored: StoredWeights, missing: frozenset[str], *, tie: bool
) -> list[str]:
    """Put in place what no file holds and the code provides; returns what of it is worth a word."""
    from .construction import tie_what_lists_declare

    absent = (frozenset(constructed.buffers) - constructed.not_stored) & missing
    if lost := sorted(buffer for buffer in absent if buffer.endswith(("running_mean", "running_var"))):
        raise CheckpointError(f"{name}: {lost[0]}, a statistic learnt in training, is in no file: fetch it again")
    constructed.put_back(model, constructed.not_stored | absent)
    tied = tie_what_lists_declare(model, frozenset(stored.tensors)) if tie else []
    odd = [f"{path} is not stored; its class lists it as tied, so it shares the input embedding" for path in tied]
    if absent:
        odd.append(f"{len(absent)} buffers are in no file and keep what the code computes: {min(absent)}")
    return odd


@dataclass(frozen=True)
class _Settled:
    """A model where it will work."""

    device: str
    dtype: str
    dim: int
    drift: float | None
    checks: tuple[str, ...]


def _settle(
    model: Any,
    name: str,
    configuration: Configuration,
    stored: StoredWeights,
    quantized: bool,
    odd: list[str],
) -> _Settled:
    """Put the model on its device in its precision, probed there, and against float32 where that is another."""
    import torch

    from . import probes
    from .precision import add_casts, in_float32, place, reload_in_float32
    from .verification import verify_placed

    device = configuration.device
    # None leaves every tensor in the dtype that it is stored in.
    dtype = None if configuration.dtype == "auto" else getattr(torch, configuration.dtype)
    if next(model.parameters(), None) is None:
        raise CheckpointError(f"{name}: {type(model).__name__} has no parameters")
    destination: str | None = device
    if quantized or "device_map" in configuration.model_kwargs:
        device, destination = str(next(model.parameters()).device), None
    if quantized:
        dtype = None
        odd.append("quantised as model_kwargs say: precision is as transformers made it")
    off = configuration.verify == "off"
    drift: float | None = None
    checks: list[str] = []
    reference = None
    lower = dtype not in (None, torch.float32)
    if lower and not off:
        where = _room_for_float32(model, device) if destination else device
        place(model, where if destination else None, None)
        try:
            with in_float32(model):
                reference = probes.probe_audio(model, name, where)
        except ALM2VecError as error:
            odd.append(f"its layers could not be run in float32 one by one ({error}): float32 is used for all of it")
            lower, dtype = False, torch.float32
    if not quantized:
        place(model, destination, dtype)
    if dtype is not torch.float32 and not quantized:
        add_casts(model)
    if not off and not quantized:
        checks.append(verify_placed(name, model, stored, full=configuration.verify == "full"))
    try:
        text = probes.probe_text(model, name, device)
        audio = None if off else probes.probe_audio(model, name, device)
        if reference is not None and audio is not None:
            drift = probes.drift(reference, audio)
    except ALM2VecError as error:
        if not lower or off:
            raise
        odd.append(f"{dtype} failed ({error}): float32 is used")
    else:
        if drift is not None and drift > MOST_DRIFT:
            odd.append(f"{dtype} moves probes by {drift:.1e} (1 - cosine), past {MOST_DRIFT}: float32 is used")
    if lower and not off and (drift is None or drift > MOST_DRIFT):
        reload_in_float32(model, stored)
        dtype = torch.float32
        text, audio = probes.probe_text(model, name, device), probes.probe_audio(model, name, device)
        assert reference is not None  # noqa: S101 - it was taken above
        drift = probes.drift(reference, audio)
    checks.append("a text encodes to one finite row")
    if audio is not None:
        checks.append("noise, a tone and silence with a question encode to finite rows")
        odd += probes.deafness(audio)
    shown = "as stored" if dtype is None else str(dtype).removeprefix("torch.")
    return _Settled(device, shown, int(text.shape[1]), drift, tuple(checks))


def _room_for_float32(model: Any, device: str) -> str:
    """Where the float32 probes run: on the device if the stored model and one float32 layer fit, else on the CPU."""
    import torch

    if torch.device(device).type != "cuda":
        return device
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return device if free > 1.2 * needed + 4 * 10**9 else "cpu"


def _transformers_version() -> str:
    import transformers

    return str(transformers.__version__)


def _warn_of_tiny(model: str) -> None:
    global _warned_of_tiny
    if model == tiny.NAME and not _warned_of_tiny:
        _warned_of_tiny = True
        warnings.warn(
            f"{tiny.NAME} is a demonstration model with random weights, not ALM2Vec: its vectors have the right shape "
            "and no meaning. For retrieval use cara-ai/ALM2Vec-FT.",
            ALM2VecWarning,
            stacklevel=2,
        )
