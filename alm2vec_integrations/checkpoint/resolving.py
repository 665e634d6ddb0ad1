"""Find the folder a model's name stands for, and decide whether its code may run."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tiny
from ..errors import CheckpointError

logger = logging.getLogger(__name__)

PUBLISHED = ("cara-ai/ALM2Vec-FT", "cara-ai/ALM2Vec-PT")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# safetensors only: unpickling runs whatever the file says.
_FILES = ["*.json", "*.py", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md"]


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint on disk.

    Attributes:
        name: what the user called it.
        folder: where its files are.
        revision: the commit they belong to; None for a folder of the user's own.
    """

    name: str
    folder: Path
    revision: str | None


def is_folder(model: str) -> bool:
    """Whether `model` is written as a folder (absolute, or beginning with `.` or `~`); never looks at the disk."""
    return Path(model).is_absolute() or model.startswith(("./", "../", ".\\", "..\\", "~")) or model in (".", "..")


def is_known(model: str) -> bool:
    """Whether the checkpoint's code is trusted without being asked: the published ones and the bundled one."""
    return model in PUBLISHED or model == tiny.NAME


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
        CheckpointError: unknown name, missing folder, failed download, or code that is not trusted.
    """
    if not trusted:
        raise CheckpointError(
            f"{model}: loading a checkpoint of this kind runs the Python code in it. Read that code, then pass "
            "trust_remote_code=True (only cara-ai/ALM2Vec-FT, cara-ai/ALM2Vec-PT and alm2vec-tiny are trusted "
            "without it)"
        )
    if model == tiny.NAME:
        if revision is not None:
            raise CheckpointError(f"{model} is bundled and has no revisions, got revision={revision!r}")
        checkpoint = ResolvedCheckpoint(model, tiny.FOLDER, None)
    elif is_folder(model):
        if revision is not None:
            raise CheckpointError(f"{model} is a folder and has no revisions, got revision={revision!r}")
        checkpoint = ResolvedCheckpoint(model, Path(model).expanduser().resolve(), None)
        if not checkpoint.folder.is_dir():
            raise CheckpointError(f"{model}: there is no such folder")
    else:
        checkpoint = _download(model, revision, token, cache_dir, local_files_only)
    _check_code(checkpoint)
    logger.info("%s: folder %s, revision %s", model, checkpoint.folder, checkpoint.revision or "none")
    return checkpoint


def _download(
    model: str, revision: str | None, token: str | bool | None, cache_dir: str | None, local_files_only: bool
) -> ResolvedCheckpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not _HUB_ID.fullmatch(model):
        raise CheckpointError(
            f"{model!r} is neither {tiny.NAME!r}, nor a hub id (owner/name), nor a folder (write ./{model} for that)"
        )
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=_FILES,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        hint = f"; for the folder of that name write ./{model}" if Path(model).is_dir() else ""
        raise CheckpointError(f"{model}: could not be fetched from the hub or its cache ({error}){hint}") from error
    return ResolvedCheckpoint(model, Path(folder), Path(folder).name)


def _check_code(checkpoint: ResolvedCheckpoint) -> None:
    """Refuse a folder without a model of this kind, and code that lives in another repository."""
    path = checkpoint.folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.name}: config.json cannot be read ({error})") from error
    auto_map = config.get("auto_map") if isinstance(config, dict) else None
    if not isinstance(auto_map, dict) or "AutoModel" not in auto_map:
        raise CheckpointError(
            f"{checkpoint.name}: config.json names no AutoModel class in auto_map, so this is not an ALM2Vec checkpoint"
        )
    for name, target in auto_map.items():
        for reference in target if isinstance(target, list) else [target]:
            if isinstance(reference, str) and "--" in reference:
                raise CheckpointError(
                    f"{checkpoint.name}: auto_map[{name!r}] takes its code from another repository ({reference}), "
                    "which was not named and is not trusted"
                )
