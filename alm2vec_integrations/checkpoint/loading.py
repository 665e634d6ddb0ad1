"""Load a checkpoint through transformers, check it against its files, and put it on its device."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tiny
from .._extras import command
from ..errors import ALM2VecError, ALM2VecWarning, CheckpointError, CheckpointUnavailableError
from .configuration import Configuration
from .report import LoadReport
from .resolving import ResolvedCheckpoint, resolve

if TYPE_CHECKING:
    from .buffers import Constructed
    from .weights import StoredWeights

logger = logging.getLogger(__name__)

# transformers copies remote code into a shared folder and imports it, and loading changes transformers and torch for
# a while: not safe in two threads at once.
_loading = threading.Lock()
_forked_while_loading = False
_warned_of: set[str] = set()


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
    from .construction import same_default_dtype_afterwards

    with _loading, same_default_dtype_afterwards():
        return _load(configuration)


def _load(configuration: Configuration) -> LoadedModel:
    from .construction import construct_again
    from .naming import called_otherwise
    from .precision import as_stored, bytes_of, dtypes_by_part
    from .settling import settle
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
    if tiny.is_stand_in(checkpoint.code):
        _warn_of_stand_in(name)
    stored = StoredWeights(checkpoint.folder)
    checks = []
    checking, full = configuration.verify != "off", configuration.verify == "full"
    if full and (files := stored.check_digests()):
        checks.append(f"{files} files have the SHA-256 that the hub names them by")
    model_class, config = _classes(checkpoint)
    quantized, odd = _is_quantized(configuration, config)
    keywords = _keywords(configuration, stored, quantized=quantized)
    model, constructed, missing = _from_pretrained(checkpoint, model_class, config, stored, keywords)
    quantized = quantized and bool(getattr(model, "is_quantized", False))  # a class may not pass it on
    model.eval()
    verify_mode(name, model)
    checks.append("evaluation mode throughout")
    # Also without verification: what is tied, and what is missing, goes by these names.
    stored.call(called_otherwise(model, stored, missing, full=full))
    odd += [] if quantized else as_stored(model, stored)
    tie = checkpoint.config.get("tie_word_embeddings") is not False
    odd += _complete(name, model, constructed, stored, missing, tie=tie)
    no_meta(name, model)
    if checking:
        again = partial(construct_again, model_class, constructed, stored.main_dtype)
        with _blamed_on_code(checkpoint):
            loaded = verify_loaded(
                name, model, stored, constructed, again, missing=missing, full=full, quantized=quantized
            )
        checks += loaded.checks
        odd += loaded.warnings
    settled = settle(model, name, configuration, stored, quantized=quantized)
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
        bytes=sum(bytes_of(tensor) for tensor in tensors),
        dim=settled.dim,
        drift=settled.drift,
        seconds=time.perf_counter() - began,
        checks=tuple(checks),
        warnings=(*odd, *settled.warnings, *eager),
    )
    logger.info("loaded %s", str(report).replace("\n", "; "))
    for warning in report.warnings:
        logger.warning("%s: %s", name, warning)
    return LoadedModel(model, settled.device, settled.dim, report)


def _classes(checkpoint: ResolvedCheckpoint) -> tuple[Any, Any]:
    """The remote model class and the checkpoint's configuration."""
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    with _blamed_on_code(checkpoint), _folder_of_code(checkpoint) as folder:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
        model_class = get_class_from_dynamic_module(checkpoint.model_class, folder, local_files_only=True)
    config.name_or_path = str(checkpoint.folder)
    if not callable(getattr(model_class, "encode", None)) or not callable(
        getattr(model_class, "from_pretrained", None)
    ):
        raise CheckpointError(
            f"{checkpoint.name}: {model_class.__name__} has no encode method, so this is not an ALM2Vec checkpoint"
        )
    return model_class, config


@contextmanager
def _folder_of_code(checkpoint: ResolvedCheckpoint) -> Iterator[str]:
    """Where transformers takes the code from.

    Before 5.1 it imports code under the name of its folder, so that a second folder of the same name would replace the
    modules of the first while its model is in use; and it copies what a module imports, but not what that imports.
    There the code goes by its digest, and all of it is put where transformers puts copies.
    """
    if _version() >= (5, 1):
        yield str(checkpoint.folder)
        return
    from transformers.dynamic_module_utils import create_dynamic_module
    from transformers.utils import HF_MODULES_CACHE, TRANSFORMERS_DYNAMIC_MODULE_NAME

    name = f"alm2vec_{hashlib.sha256(repr(checkpoint.code).encode()).hexdigest()[:16]}"
    create_dynamic_module(Path(TRANSFORMERS_DYNAMIC_MODULE_NAME) / name)
    copies = Path(HF_MODULES_CACHE) / TRANSFORMERS_DYNAMIC_MODULE_NAME / name
    with tempfile.TemporaryDirectory(prefix="alm2vec-code-") as place:
        folder = Path(place) / name
        folder.mkdir()
        # What is written down as none, 4.52 trips over.
        config = {key: value for key, value in checkpoint.config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for file in checkpoint.code:
            shutil.copyfile(checkpoint.folder / file, folder / file)
            shutil.copyfile(checkpoint.folder / file, copies / file)
        yield str(folder)


def _keywords(configuration: Configuration, stored: StoredWeights, *, quantized: bool) -> dict[str, Any]:
    """What `from_pretrained` is told about precision and place, beside what the user tells it."""
    import torch

    dtype = stored.main_dtype
    if quantized and configuration.dtype != "auto":
        dtype = getattr(torch, configuration.dtype)  # what surrounds quantised layers is not cast here
    # Renamed in 4.56; the old name is deprecated in 5.
    keywords: dict[str, Any] = {"dtype" if _version() >= (4, 56) else "torch_dtype": dtype}
    if quantized:
        keywords["device_map"] = {"": configuration.device}  # quantised while it is placed
    given = dict(configuration.model_kwargs)
    if not given.get("quantization_config"):  # {} is none
        given.pop("quantization_config", None)
    return keywords | {name: value for name, value in given.items() if value is not None}


def _is_quantized(configuration: Configuration, config: Any) -> tuple[bool, list[str]]:
    """Whether transformers is to quantise, or to load what is quantised; and what is odd about that, in words."""
    from transformers.quantizers import AutoHfQuantizer

    asked, own = configuration.model_kwargs.get("quantization_config"), getattr(config, "quantization_config", None)
    method = own.get("quant_method") if isinstance(own, dict) else None
    odd = []
    if method is not None and not AutoHfQuantizer.supports_quant_method(own):
        odd.append(
            f"config.json says that it is quantised by {method!r}, which transformers {_transformers_version()} does "
            "not know: nothing is quantised, and it is loaded as any other"
        )
        own = None
    if not own and hasattr(config, "quantization_config"):
        del config.quantization_config  # empty, or of no use; some versions trip over it
    return bool(asked or own), odd


def _from_pretrained(
    checkpoint: ResolvedCheckpoint, model_class: Any, config: Any, stored: StoredWeights, keywords: dict[str, Any]
) -> tuple[Any, Constructed, frozenset[str]]:
    """The model on the CPU in the dtype that it is stored in, its memory still the files' where that is possible."""
    from .construction import real_buffers

    dtype = keywords["dtype"] if "dtype" in keywords else keywords["torch_dtype"]
    with _blamed_on_code(checkpoint), real_buffers(model_class, dtype) as constructed:
        model = model_class.from_pretrained(
            str(checkpoint.folder),
            config=config,
            local_files_only=True,
            use_safetensors=True,
            **keywords,
        )
    info = constructed.info
    for path in sorted(key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys", ())):
        in_model = tuple(model.state_dict(keep_vars=True)[path].shape)
        if path in stored.tensors and stored.tensors[path].shape == in_model:
            raise CheckpointError(
                f"{checkpoint.name}: transformers takes another tensor for {path}: it strips the prefix "
                f"{model_class.base_model_prefix!r} from names in {stored.tensors[path].file}. Use the transformers "
                "version that the checkpoint was written for"
            )
        entry = stored.tensors.get(path)  # not there if transformers translates its name
        in_files = f"{entry.shape} in {entry.file}" if entry else "another in the files"
        raise CheckpointError(
            f"{checkpoint.name}: {path} has shape {in_files} and {in_model} in the model: config.json and the weights "
            "do not belong together, fetch both again"
        )
    return model, constructed, frozenset(info.get("missing_keys", ()))


@contextmanager
def _blamed_on_code(checkpoint: ResolvedCheckpoint) -> Iterator[None]:
    """Whatever the checkpoint's own code raises, or transformers while it runs it, is the checkpoint's fault."""
    try:
        yield
    except ALM2VecError:
        raise
    except Exception as error:
        if _is_of_torchaudio(error):
            raise CheckpointUnavailableError(
                f"{checkpoint.name}: its code imports torchaudio, which cannot be imported here "
                f"({type(error).__name__}: {error}): {command('torchaudio')}, in the build that matches your torch"
            ) from error
        eager = 'model_kwargs={"attn_implementation": "eager"} may help'
        hint = f" ({eager})" if "attn_implementation" in str(error) else ""
        raise CheckpointError(
            f"{checkpoint.name}: could not be loaded with transformers {_transformers_version()}: "
            f"{type(error).__name__}: {_naming_its_file(error, checkpoint)}{hint}"
        ) from error


def _naming_its_file(error: Exception, checkpoint: ResolvedCheckpoint) -> Exception:
    """A syntax error as Python raises it: transformers parses code without telling the parser whose it is."""
    if isinstance(error, SyntaxError):
        for file in checkpoint.code:
            try:
                compile((checkpoint.folder / file).read_bytes(), file, "exec", dont_inherit=True)
            except SyntaxError as found:
                return found
    return error


def _complete(
    name: str, model: Any, constructed: Constructed, stored: StoredWeights, missing: frozenset[str], *, tie: bool
) -> list[str]:
    """Put in place what no file holds and the code provides; returns what of it is worth a word."""
    from .tying import tie_what_lists_declare

    lost = sorted(buffer for buffer in constructed.absent if buffer.endswith(("running_mean", "running_var")))
    if lost and not any(path in missing for path, _ in model.named_parameters()):  # else there is worse to say
        raise CheckpointError(f"{name}: {lost[0]}, a statistic learnt in training, is in no file: fetch it again")
    return [*tie_what_lists_declare(model, frozenset(stored.tensors), root=tie), *constructed.remarks()]


def _transformers_version() -> str:
    import transformers

    return str(transformers.__version__)


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in _transformers_version().split(".")[:2])


def _is_of_torchaudio(error: BaseException) -> bool:
    """Whether it is missing, or raised while it was imported: OSError where its build is not torch's."""
    if not isinstance(error, (ImportError, OSError)):
        return False
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return "torchaudio" in str(error) or any("torchaudio" in Path(file).parts for file in files)


def _warn_of_stand_in(name: str) -> None:
    if name in _warned_of:
        return
    _warned_of.add(name)
    what = "is" if name == tiny.NAME else f"has the code of {tiny.NAME},"
    warnings.warn(
        f"{name} {what} a demonstration model, not ALM2Vec: it knows some fifty procedural sounds at best and nothing "
        "of the world. For retrieval use cara-ai/ALM2Vec-FT.",
        ALM2VecWarning,
        stacklevel=2,
    )
