"""Find the folder a model's name stands for, and decide whether its code may run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tiny
from ..errors import CheckpointError, CheckpointUnavailableError

logger = logging.getLogger(__name__)

PUBLISHED = ("cara-ai/ALM2Vec-FT", "cara-ai/ALM2Vec-PT")

TRUSTED_VARIABLE = "ALM2VEC_TRUSTED_REPOS"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# safetensors only: unpickling runs whatever the file says.
_CONFIGURATIONS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_FILES = ["*.json", "*.py", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md"]


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint on disk.

    Attributes:
        name: what the user called it.
        folder: where its files are.
        revision: the commit they belong to; None for a folder of the user's own.
        config: what its config.json says.
        model_class: `file.Class` that `auto_map` names for AutoModel.
        code: the Python files that loading runs, with the SHA-256 of each.
    """

    name: str
    folder: Path
    revision: str | None
    config: dict[str, Any]
    model_class: str
    code: dict[str, str]


def is_folder(model: str) -> bool:
    """Whether `model` is written as a folder (absolute, or beginning with `.` or `~`); never looks at the disk."""
    return Path(model).is_absolute() or model.startswith(("./", "../", ".\\", "..\\", "~")) or model in (".", "..")


def is_known(model: str, revision: str | None) -> bool:
    """Whether the checkpoint's code is trusted without being asked.

    That holds for the two published checkpoints, the bundled one, and those that `is_named` knows.
    """
    return model in PUBLISHED or model == tiny.NAME or is_named(model, revision)


def is_named(model: str, revision: str | None) -> bool:
    """Whether the environment variable ALM2VEC_TRUSTED_REPOS names it.

    As `repo@revision`, or as the absolute path of a folder; several are separated by commas or spaces.
    """
    named = model if is_folder(model) and revision is None else f"{model}@{revision}"
    return named in re.split(r"[,\s]+", os.environ.get(TRUSTED_VARIABLE, ""))


def resolve(
    model: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | None,
    local_files_only: bool,
    trusted: bool,
) -> ResolvedCheckpoint:
    """The folder that `model` stands for, downloaded if need be, once its code is trusted.

    Raises:
        CheckpointUnavailableError: unknown name, missing folder, failed download, or code that is not trusted.
        CheckpointError: what is there is not a checkpoint of this kind.
    """
    local = _local(model, revision)
    if not trusted:
        raise CheckpointUnavailableError(
            f"{model}: loading a checkpoint of this kind runs the Python code in it. Read that code, then pass "
            "trust_remote_code=True (only cara-ai/ALM2Vec-FT, cara-ai/ALM2Vec-PT and alm2vec-tiny are trusted "
            "without it)"
        )
    folder, commit = (local, None) if local else _download(model, revision, token, cache_dir, local_files_only, _FILES)
    config = _check_config(model, folder)
    auto_map = config["auto_map"]
    code = _code(model, folder, needed=[auto_map["AutoModel"], auto_map.get("AutoConfig")])
    checkpoint = ResolvedCheckpoint(model, folder, commit, config, auto_map["AutoModel"], code)
    logger.info("%s: folder %s, revision %s, runs %s", model, folder, commit or "none", checkpoint.code)
    return checkpoint


def _local(model: str, revision: str | None) -> Path | None:
    """Where a checkpoint is that is not on the hub, and so has no revisions; None for one that is."""
    if model != tiny.NAME and not is_folder(model):
        return None
    folder = tiny.FOLDER if model == tiny.NAME else Path(model).expanduser().resolve()
    if not folder.is_dir():
        raise CheckpointUnavailableError(f"{model}: there is no such folder")
    if revision is not None:
        what = "bundled" if model == tiny.NAME else "a folder"
        raise CheckpointUnavailableError(f"{model} is {what} and has no revisions, got revision={revision!r}")
    return folder


def pin(
    model: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> str | None:
    """The commit that a checkpoint's name stands for, None for one without commits; fetches its config.json alone.

    Raises:
        CheckpointUnavailableError: unknown name, missing folder, failed download.
        CheckpointError: what is there is not a checkpoint of this kind.
    """
    local, files = _local(model, revision), ["config.json"]
    folder, commit = (local, None) if local else _download(model, revision, token, cache_dir, local_files_only, files)
    _check_config(model, folder)
    return commit


def _download(
    model: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    files: list[str],
) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not _HUB_ID.fullmatch(model):
        raise CheckpointUnavailableError(
            f"{model!r} is neither {tiny.NAME!r}, nor a hub id (owner/name), nor a folder (write ./{model} for that)"
        )
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            token=token,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            local_files_only=local_files_only,
            allow_patterns=files,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        hint = f"; for the folder of that name write ./{model}" if Path(model).is_dir() else ""
        raise CheckpointUnavailableError(
            f"{model}: could not be fetched from the hub or its cache ({error}){hint}"
        ) from error
    return Path(folder), Path(folder).name


def _check_config(model: str, folder: Path) -> dict[str, Any]:
    """What config.json says; refuses what is no model of this kind."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{model}: config.json cannot be read ({error})") from error
    auto_map = config.get("auto_map") if isinstance(config, dict) else None
    if not isinstance(auto_map, dict) or not isinstance(auto_map.get("AutoModel"), str):
        raise CheckpointError(
            f"{model}: config.json names no AutoModel class in auto_map, so this is not an ALM2Vec checkpoint"
        )
    return config  # type: ignore[no-any-return]


def _code(model: str, folder: Path, needed: Collection[str]) -> dict[str, str]:
    """The files that the classes in any `auto_map` are made of, by name, with their SHA-256.

    A model's code may load the tokenizer or processor that lies beside it, whose classes other files name.

    Raises:
        CheckpointError: a class that comes from another repository, or code that cannot be read.
    """
    from transformers.dynamic_module_utils import get_relative_import_files

    digests = {}
    for file in _CONFIGURATIONS:
        for reference in _references(model, folder / file):
            if "--" in reference:
                raise CheckpointError(
                    f"{model}: auto_map in {file} takes its code from another repository ({reference}), which was not "
                    "named and is not trusted"
                )
            module = folder / f"{reference.split('.')[0]}.py"
            if not module.is_file() and reference not in needed:
                continue  # a processor, say, that is not part of this checkpoint
            try:
                for source in [module, *map(Path, get_relative_import_files(str(module)))]:
                    digests[source.name] = hashlib.sha256(source.read_bytes()).hexdigest()
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(
                    f"{model}: {file} names {reference}, but its code cannot be read ({error})"
                ) from error
    return dict(sorted(digests.items()))


def _references(model: str, file: Path) -> list[str]:
    """All that the `auto_map`s in a JSON file name, however deep."""
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{model}: {file.name} cannot be read ({error})") from error
    found: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, list):
            for one in value:
                visit(one)
        elif isinstance(value, dict):
            auto_map = value.get("auto_map")
            if isinstance(auto_map, dict):
                targets = [
                    t for target in auto_map.values() for t in (target if isinstance(target, list) else [target])
                ]
                found.extend(target for target in targets if isinstance(target, str))
            for one in value.values():
                visit(one)

    visit(content)
    return found
