"""The bundled checkpoint `alm2vec-tiny`: ALM2Vec's documented shape at a size that travels in the wheel."""

from pathlib import Path

NAME = "alm2vec-tiny"
FOLDER = Path(__file__).parent / "checkpoint"
