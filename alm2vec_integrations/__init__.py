"""ALM2Vec, an instruction-aware audio embedding model, for the retrieval stacks people already have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio.segmenting import segment as segment
    from .clips import AudioClip as AudioClip
    from .encoder import ALM2VecEncoder as ALM2VecEncoder
    from .encoder import Encoder as Encoder
    from .errors import ALM2VecError as ALM2VecError
    from .errors import ALM2VecWarning as ALM2VecWarning
    from .errors import AudioAccessError as AudioAccessError
    from .errors import AudioError as AudioError
    from .errors import CheckpointError as CheckpointError
    from .errors import InputError as InputError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import ModelContractError as ModelContractError
    from .inputs import AudioText as AudioText
    from .instructions import DOC_INSTRUCTION as DOC_INSTRUCTION
    from .instructions import QUERY_INSTRUCTION as QUERY_INSTRUCTION
    from .instructions import QUESTIONS as QUESTIONS
    from .runtime import EncodeResult as EncodeResult
    from .runtime import Failure as Failure

__version__ = "0.1.0"

_HOMES = {
    "audio.segmenting": ("segment",),
    "encoder": ("ALM2VecEncoder", "Encoder"),
    "errors": (
        "ALM2VecError",
        "ALM2VecWarning",
        "AudioAccessError",
        "AudioError",
        "CheckpointError",
        "InputError",
        "MissingExtraError",
        "ModelContractError",
    ),
    "clips": ("AudioClip",),
    "inputs": ("AudioText",),
    "instructions": ("DOC_INSTRUCTION", "QUERY_INSTRUCTION", "QUESTIONS"),
    "runtime": ("EncodeResult", "Failure"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
