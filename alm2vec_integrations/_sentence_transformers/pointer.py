"""What a saved model consists of: which checkpoint it is and how it is used, in kilobytes and without weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..checkpoint.stored import other_keywords
from ..errors import InputError

FILE = "alm2vec.json"
"""Name of the file that says so; `config.json` would be taken for the checkpoint's own."""

PORTABLE = ("dtype", "model_kwargs", "max_batch_items", "max_batch_seconds", "batching")
"""The encoder's arguments that are saved. What belongs to one machine, opens a door or lowers a guard is not."""

_KEYS = {"model", "revision", "strings", *PORTABLE}


def is_one(folder: Any) -> bool:
    """Whether it is a folder with this file."""
    return isinstance(folder, (str, os.PathLike)) and (Path(folder) / FILE).is_file()


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the file.

    Raises:
        InputError: a setting cannot be written as JSON.
    """
    said = {name: value for name, value in settings.items() if value is not None}
    if str(said.get("model")) == str(folder.absolute()):
        raise InputError(f"{folder} is the checkpoint itself, which would be none any more: name another folder")
    if others := other_keywords(said.get("model_kwargs", {})):
        raise InputError(f"these model_kwargs are not saved: {others}: leave them out, and pass them when loading")
    if "dtype" in said:
        said["dtype"] = str(said["dtype"]).removeprefix("torch.")
    try:
        text = json.dumps(said, indent=2)
    except TypeError as error:
        raise InputError(
            f"model_kwargs cannot be saved ({error}): leave them out when saving, and pass them when loading"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def write_for_the_library(folder: Path, module: str, settings: Mapping[str, Any]) -> None:
    """Write the files by which the library makes a model of one module that the folder describes.

    Args:
        folder: exists.
        module: path of the module's class.
        settings: the model's, by the library's names for them.
    """
    from sentence_transformers import __version__ as version

    reason = "it has the module that loads this model"
    config = {
        "model_type": "SentenceTransformer",
        "__version__": {"sentence_transformers": version},
        **settings,
        "requirements": {"alm2vec-integrations": {"specifier": f">={__version__}", "reason": reason}},
    }
    modules = [{"idx": 0, "name": "0", "path": "", "type": module}]
    for name, content in (("config_sentence_transformers.json", config), ("modules.json", modules)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file said, if it is one of these.

    Raises:
        InputError: it is not, or a later version of this package wrote it.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("model"), str):
        raise InputError(f"{where}: there is no {FILE} that names a model: make the folder with export()")
    if not isinstance(settings.get("model_kwargs", {}), Mapping):
        raise InputError(f"{where}: model_kwargs in {FILE} must be an object")
    if others := other_keywords(settings.get("model_kwargs", {})):
        raise InputError(f"{where}: model_kwargs in {FILE} hold what a file may not say: {others}: pass it yourself")
    if unknown := sorted(set(settings) - _KEYS):
        raise InputError(f"{where}: {FILE} has settings that this version does not know: {unknown}: upgrade")
    return dict(settings)
