"""ALM2Vec as a model of sentence-transformers.

`load` gives a `SentenceTransformer`; `export` writes a folder from which the library itself makes one. Prompts are
instructions: nothing is put before a text.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ._extras import require

require("sentence_transformers", "sentence-transformers")

import torch  # noqa: E402 - sentence-transformers loads it anyway
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData, SimilarityFunction  # noqa: E402
from sentence_transformers.base.modules import InputModule  # noqa: E402
from torch import nn  # noqa: E402

from . import arguments  # noqa: E402
from ._sentence_transformers import known, parsing, pointer  # noqa: E402
from ._sentence_transformers.parsing import Strings  # noqa: E402
from ._sentence_transformers.prompts import PROMPTS, Owners, named_prompts, task_of  # noqa: E402
from .checkpoint.resolving import pin  # noqa: E402
from .encoder import ALM2VecEncoder  # noqa: E402
from .errors import ALM2VecWarning, InputError  # noqa: E402

if TYPE_CHECKING:
    from sentence_transformers.base.modality_types import Modality

__all__ = ["PROMPTS", "ALM2VecModule", "export", "load"]


class ALM2VecModule(InputModule):
    """The first module of a `SentenceTransformer`: inputs of any kind to vectors of length 1, float32.

    The model is loaded when the `SentenceTransformer` is complete, or moved to another device and then used; models of
    equal configuration share it. It stays in evaluation mode. Its weights cannot be trained: the model card's `encode`
    gives no gradients. Pickles and saved folders name the checkpoint and hold no weights and no token.

    Args:
        model: as for `ALM2VecEncoder`.
        strings: what a `str` is. "text": text. "auto": by sentence-transformers' rule, audio if it is the path of an
            audio file, and otherwise text, but an error if it looks like one and does not exist.
        **encoder_arguments: as for `ALM2VecEncoder`.

    Raises:
        InputError: an argument has the wrong type or value.
    """

    config_file_name = pointer.FILE
    save_in_root = True
    forward_kwargs = {"instruction"}  # noqa: RUF012 - as in the base class

    def __init__(self, model: str | os.PathLike[str], *, strings: Strings = "text", **encoder_arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if pointer.is_one(model):
            raise InputError(
                f"{model} points to a checkpoint and is none: open it with SentenceTransformer({str(model)!r}, "
                "trust_remote_code=True), or name the checkpoint itself"
            )
        if own := sorted({"query_instruction", "document_instruction"} & set(encoder_arguments)):
            raise InputError(f"{own} are prompts here: load() takes them, or SentenceTransformer(..., prompts=…)")
        self.strings = parsing.strings_setting(strings)
        self.encoder = ALM2VecEncoder(model, **encoder_arguments)
        self._settings = {name: encoder_arguments.get(name) for name in pointer.PORTABLE}
        self._pinned: str | None = encoder_arguments.get("revision")
        self._trusted = encoder_arguments.get("trust_remote_code") is True
        self._means = {name: encoder_arguments.get(name) for name in known.MEANS}
        self._has_device_map = bool((encoder_arguments.get("model_kwargs") or {}).get("device_map"))
        self._device: torch.device | None = None  # as the library says
        self._owners = Owners()
        # Without values. Where it lies is where the library put this module, before and after there is a model; its
        # dtype, which modules behind this one are cast to, is that of the vectors; and freezing reaches it first.
        self.placement = nn.Parameter(torch.empty(0))

    # Inputs

    @property
    def modalities(self) -> list[Modality]:
        """What the library may pass on; with "message" also batches of mixed kinds."""
        return ["text", "audio", ("audio", "text"), "message"]

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        instruction: str | None = None,
        **unused: Any,
    ) -> dict[str, Any]:
        """What `forward` takes.

        Args:
            inputs: of any form that docs/sentence-transformers.md lists, mixed as they come.
            prompt: the instruction; None and "" are the default of the task.
            task: "query" or "document"; without one, "query" if the prompt is that of a name other than "document".
            instruction: in place of `prompt`, for prompts that come by themselves.
            **unused: what the library may pass for other models; refused if it asks for anything.

        Returns:
            `input_ids`, int64 [N, 1], counting -1, -2, … through the list `items`, with their own `instructions` (or
            None), and `instruction` and `task` of all.

        Raises:
            InputError: an input is none of these; it says which by what it is, since the library has sorted them.
        """
        # The library takes a TypeError or AttributeError for a sign that prompts are not understood, and goes on
        # without the prompt.
        try:
            if given := sorted(name for name, value in unused.items() if value):
                raise InputError(f"ALM2Vec's own code prepares its input, so these have no effect: {given}")
            parsed = [parsing.parse(value, self.strings) for value in inputs]
            prompted = arguments.instruction("prompt", prompt)
            return {
                # No tokens: what decodes these, as some losses do to ask another model, must fail.
                "input_ids": ~torch.arange(len(parsed))[:, None],
                "items": [one.item for one in parsed],
                "instructions": [one.instruction for one in parsed],
                "instruction": arguments.instruction("instruction", instruction) or prompted,
                "task": task_of(prompt, self._owners.prompts()) if task is None else arguments.task(task),
            }
        except (TypeError, AttributeError) as error:
            raise InputError(f"the inputs could not be read: {type(error).__name__}: {error}") from error

    # Vectors

    @torch.compiler.disable  # type: ignore[untyped-decorator] # inside are lists, and the checkpoint's own code
    def forward(self, features: dict[str, Any], instruction: str | None = None) -> dict[str, Any]:
        """Add `sentence_embedding`, float32 [N, D], each of length 1.

        Args:
            features: from `preprocess`, or some of its rows.
            instruction: in place of the one in `features`, for all but the inputs that bring their own.

        Raises:
            InputError: as `ALM2VecEncoder.encode`, but for the item's place; or the model is to be trained.
            CheckpointError: the model cannot be loaded.
            ModelContractError: the model answers in a way that its card rules out.
        """
        if self.training and torch.is_grad_enabled():
            self._check_training()
        self._hold()
        # Losses that work through a batch in parts pass some rows of the tensors, and all of everything else.
        rows = (~features["input_ids"][:, 0]).tolist()
        common = instruction or features["instruction"]
        items = [features["items"][row] for row in rows]
        steering = [features["instructions"][row] or common for row in rows]
        try:
            vectors = self.encoder.encode(items, task=features["task"], instruction=steering)
        except InputError as error:
            if error.index is None:
                raise
            raise parsing.named(error, items[error.index]) from error
        features["sentence_embedding"] = torch.from_numpy(vectors).to(self.placement.device)
        return features

    def _check_training(self) -> None:
        remedy = "Freeze them, model[0].requires_grad_(False), and train a module behind them, such as Dense"
        if any(p.requires_grad for p in self.parameters()):
            raise InputError(f"ALM2Vec's weights cannot be trained here: its encode gives no gradients. {remedy}")
        if self._owners.learn_nothing():
            raise InputError("there is nothing to train: append a module to the frozen model, such as Dense")

    def get_embedding_dimension(self) -> int:
        """Width of the vectors; loads the model."""
        return self.encoder.dim

    # The model

    def on_model_ready(self, model: Any) -> None:
        """Load, now that the library has chosen a device."""
        self._owners.add(model)
        self._hold()
        card = model.model_card_data
        if self._pinned is not None and card.base_model is None:  # from the hub
            card.base_model, card.base_model_revision = self.encoder.model, self._pinned

    def _hold(self) -> None:
        """Make the model a part of this one, where the library looks for device, dtype and configuration."""
        module = self.encoder.module
        if self._modules.get("model") is not module:
            if not self.placement.requires_grad:
                module.requires_grad_(False)
            self.model = module
            self._pinned = self.encoder.revision
            known.note((self.encoder.model, self._pinned), trusted=self._trusted, means=self._means)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:  # noqa: ARG002
        """What `to`, `half` and others come to. A model that others share is not moved, but changed for another."""
        placed = fn(self.placement.detach())
        if placed.dtype != self.placement.dtype:
            raise InputError(
                f"ALM2Vec's weights are cast, and checked, while they are loaded, and not to {placed.dtype} later: "
                'load with dtype="float32", "bfloat16" or "float16"'
            )
        if placed.device.type == "meta":
            raise InputError("on the meta device there are no values: name another device")
        if not self._has_device_map and placed.device != self._device:
            self._modules.pop("model", None)
            self.encoder = self.encoder.on_device(placed.device)
            self._device = placed.device
        super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> Self:
        """Whether modules behind this one train; the model itself stays in evaluation mode."""
        self.training = mode
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Workers and copies load, or share, for themselves.
        modules = {name: module for name, module in self._modules.items() if name != "model"}
        return self.__dict__ | {"_modules": modules, "_means": self._means | {"token": None}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]
        if "model" in self._modules:
            twin._hold()
        return twin

    # What other models have

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """Of the checkpoint, for counting tokens; the model's own code uses its own."""
        from transformers import AutoTokenizer

        # Its code, if it has any, was trusted with the model's.
        folder = self.encoder.load_report.folder
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=True, local_files_only=True)

    @property
    def max_seq_length(self) -> None:
        """None: nothing is truncated here."""
        return None

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None:
            warnings.warn(
                f"max_seq_length={value} has no effect: ALM2Vec's own code prepares its input, and none is truncated",
                ALM2VecWarning,
                stacklevel=2,
            )

    # Folders

    def get_config_dict(self) -> dict[str, Any]:
        """What is saved: the checkpoint's name, its commit if it is known, and how it is used."""
        return {"model": self.encoder.model, "revision": self._pinned, "strings": self.strings, **self._settings}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: ARG002
        """Write a pointer to the checkpoint."""
        pointer.write(Path(output_path), self.get_config_dict())

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,  # noqa: ARG003 - see below
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **unused: Any,
    ) -> Self:
        """From a folder that `export` or `save_pretrained` wrote.

        `trust_remote_code` is how the library is allowed to import this class. It says nothing of the checkpoint that
        the folder names, which is trusted as any that a file names: the published ones as their main branches have
        them, the bundled one, those in ALM2VEC_TRUSTED_REPOS, and those that Python code in this process trusted.
        """
        others = {"processor_kwargs": processor_kwargs, "config_kwargs": config_kwargs, **unused}
        if given := sorted(name for name, value in others.items() if value):
            raise InputError(f"ALM2Vec's own code prepares its input, so these have no effect: {given}")
        if backend != "torch":
            raise InputError(f'ALM2Vec has no backend {backend!r}: use "torch"')
        try:
            found = cls.load_config(
                model_name_or_path,
                subfolder=subfolder,
                token=token,
                cache_folder=cache_folder,
                revision=revision,
                local_files_only=local_files_only,
            )
        except ValueError as error:
            raise InputError(f"{model_name_or_path}: {pointer.FILE} is not JSON ({error})") from error
        settings = pointer.check(found, model_name_or_path)
        named = (arguments.model_name(settings["model"]), settings.get("revision"))
        reach = known.means(named, token=token, cache_dir=cache_folder) | {"local_files_only": local_files_only}
        trusted = known.is_trusted(named, **reach)
        given_kwargs = dict(model_kwargs or {})
        dtype = given_kwargs.pop("dtype", None) or given_kwargs.pop("torch_dtype", None) or settings.get("dtype")
        return cls(
            **settings
            | {
                "dtype": dtype,
                "model_kwargs": {**settings.get("model_kwargs", {}), **given_kwargs} or None,
                "trust_remote_code": trusted,
            }
            | reach
        )


def load(
    model: str | os.PathLike[str],
    *,
    strings: Strings = "text",
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity_fn_name: str | None = None,
    truncate_dim: int | None = None,
    model_card_data: SentenceTransformerModelCardData | None = None,
    **encoder_arguments: Any,
) -> SentenceTransformer:
    """A checkpoint as a `SentenceTransformer`.

    Args:
        model: as for `ALM2VecEncoder`.
        strings: what a `str` is: "text", or by sentence-transformers' own rule ("auto"), as `ALM2VecModule` says.
        prompts: more named prompts, or others for the names in `PROMPTS`.
        default_prompt_name: which of them `encode` uses when it is given none.
        similarity_fn_name: "cosine" (if None), "dot", "euclidean" or "manhattan".
        truncate_dim: width that vectors are cut to.
        model_card_data: for the card that `save_pretrained` writes.
        **encoder_arguments: as for `ALM2VecEncoder`; `query_instruction` and `document_instruction` are the prompts
            "query" and "document".

    Raises:
        InputError: an argument has the wrong type or value.
        CheckpointError: the model cannot be loaded.
    """
    said = named_prompts(prompts, encoder_arguments)
    module = ALM2VecModule(model, strings=strings, **encoder_arguments)
    device = encoder_arguments.get("device")
    return SentenceTransformer(
        modules=[module],
        device=None if device is None else str(device),
        prompts=said,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=similarity_fn_name,  # type: ignore[arg-type]
        truncate_dim=truncate_dim,
        trust_remote_code=True,
        # The library would look for a folder's name on the hub.
        model_card_data=model_card_data or SentenceTransformerModelCardData(local_files_only=True),
    )


def export(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    strings: Strings = "text",
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity_fn_name: str | None = None,
    truncate_dim: int | None = None,
    **encoder_arguments: Any,
) -> Path:
    """Write a pointer folder: `SentenceTransformer(folder, trust_remote_code=True)` gives what `load` gives.

    It holds kilobytes: the checkpoint's name and commit, and settings. The weights are neither loaded nor copied, and
    none of the checkpoint's code is run.

    Args:
        model: as for `ALM2VecEncoder`. A folder of one's own is written down as its absolute path; its code is not
            trusted because a file names it, so whoever opens the pointer calls `load(folder, trust_remote_code=True)`
            first, in the same process.
        folder: made if need be.
        revision: branch, tag or commit on the hub; the commit that it stands for now is what is written down.
        token: for the hub.
        cache_dir: of the hub.
        local_files_only: take the commit from the cache.
        strings: as for `load`.
        prompts: as for `load`.
        default_prompt_name: as for `load`.
        similarity_fn_name: as for `load`.
        truncate_dim: as for `load`.
        **encoder_arguments: `query_instruction`, `document_instruction`, `dtype`, `model_kwargs`, `max_batch_items`,
            `max_batch_seconds` and `batching`.

    Returns:
        The folder.

    Raises:
        InputError: an argument has the wrong type or value, or is not one that is saved.
        CheckpointError: there is no such checkpoint, or it is not one of ALM2Vec's kind.
    """
    said = named_prompts(prompts, encoder_arguments)
    if default_prompt_name is not None and default_prompt_name not in said:
        raise InputError(f"default_prompt_name must be one of {sorted(said)}, got {default_prompt_name!r}")
    if others := sorted(set(encoder_arguments) - set(pointer.PORTABLE)):
        raise InputError(f"these are not saved: {others}: what belongs to a machine or a moment, pass to load()")
    module = ALM2VecModule(model, strings=strings, revision=revision, **encoder_arguments)
    name = module.encoder.model
    commit = pin(name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file: name a folder to write to")
    pointer.write(place, module.get_config_dict() | {"revision": commit})
    settings = {
        "prompts": said,
        "default_prompt_name": default_prompt_name,
        "similarity_fn_name": SimilarityFunction(similarity_fn_name or "cosine").value,
        "truncate_dim": truncate_dim,
    }
    pointer.write_for_the_library(place, f"{ALM2VecModule.__module__}.{ALM2VecModule.__name__}", settings)
    return place
