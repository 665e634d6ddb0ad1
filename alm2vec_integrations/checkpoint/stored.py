"""What files may say of a checkpoint: pointer folders, pipelines and indexes that were stored, and by anyone changed.

Which of the encoder's arguments are taken from a file is for each door to say. Never those that name places on a
machine (`cache_dir`), open doors (`trust_remote_code`, `allowed_audio_roots`, `token`) or lower guards (`verify`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointUnavailableError
from .resolving import PUBLISHED, TRUSTED_VARIABLE, is_folder, is_known, is_named

KEYWORDS = frozenset({"attn_implementation", "device_map", "max_memory", "low_cpu_mem_usage", "quantization_config"})
"""What a file may say to transformers' `from_pretrained`: nothing that is code or weights from elsewhere, or secret."""


def other_keywords(model_kwargs: Mapping[str, Any] | None) -> list[str]:
    """Those of `model_kwargs` that no file may say; attention by name of a repository is code from there."""
    given = model_kwargs or {}
    others = set(map(str, given)) - KEYWORDS
    if "/" in str(given.get("attn_implementation")):
        others.add("attn_implementation")
    return sorted(others)


def check_stored(
    model: str,
    revision: str | None,
    *,
    token: str | bool | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> None:
    """Refuse a revision of a published checkpoint that a file names and its authors may never have published.

    Anyone can propose code to a repository on the hub, and what is proposed has a commit there. So of the revisions
    that come from a file, those are trusted that the main branch has, and those in ALM2VEC_TRUSTED_REPOS.

    Raises:
        CheckpointUnavailableError: another revision, or one that cannot be looked up.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if not is_known(model, revision):
        named = model if is_folder(model) else f"{model}@{revision or 'COMMIT'}"
        raise CheckpointUnavailableError(
            f"{model}: a file names this checkpoint, and its code is not trusted for that: loading a checkpoint of "
            f"this kind runs the Python code in it. Read that code, then set {TRUSTED_VARIABLE}={named}"
            + (", and the file's revision to that commit" if not is_folder(model) and revision is None else "")
        )
    if model not in PUBLISHED or revision in (None, "main") or is_named(model, revision):
        return
    reference = Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "refs" / "main"
    if reference.is_file() and reference.read_text(encoding="utf-8").strip() == revision:
        return
    reason = "it is not on the main branch of that repository"
    try:
        if local_files_only:
            reason = "the hub may not be asked whether it is on the main branch (local_files_only)"
        elif any(commit.commit_id == revision for commit in HfApi(token=token).list_repo_commits(model)):
            return
    except (HfHubHTTPError, OSError) as error:
        reason = f"the hub could not be asked whether it is on the main branch ({error})"
    raise CheckpointUnavailableError(
        f"{model}: a file names its revision {revision!r}, and {reason}. If you have read its code, name it in "
        f"{TRUSTED_VARIABLE}={model}@{revision}"
    )
