"""The bundled checkpoint `alm2vec-tiny`: ALM2Vec's documented shape at a size that travels in the wheel."""

from collections.abc import Iterable
from pathlib import Path, PurePath

NAME = "alm2vec-tiny"
FOLDER = Path(__file__).parent / "checkpoint"
CODE = "modeling_alm2vec_tiny.py"


def is_stand_in(code: Iterable[str]) -> bool:
    """Whether a checkpoint that runs these files is `alm2vec-tiny`, or another of its code, under whatever name."""
    return any(PurePath(file).name == CODE for file in code)
