"""The family's checkpoint with other code, configuration and tensors, and what it should give."""

import checkpoint_family as family
import transformers
from safetensors.torch import save_file

from alm2vec_integrations import ALM2VecEncoder

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])


def ours(folder, **keywords):
    """An encoder on the folder."""
    return ALM2VecEncoder(folder, trust_remote_code=True, device="cpu", **keywords)


def make(folder, *, code=None, config=None, tensors=None, narrow=None, edits=()):
    """The family's checkpoint with other code, configuration and tensors.

    `edits` are pairs of what stands in its code and what shall stand there; `narrow` is the dtype it is stored in.
    """
    family.write(folder, family.Member("made", code, config))
    stored = family.weights() | (tensors or {})
    if narrow is not None:
        stored = {n: t.to(narrow) if t.is_floating_point() else t for n, t in stored.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    source = (folder / "modeling_family.py").read_text()
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    (folder / "modeling_family.py").write_text(source)
    return folder


def close_to_recorded(encoder, sounds, most=1e-3):
    """Whether its vectors are those that 4.52.4 gave for the family."""
    return 1 - (family.our_vectors(encoder, sounds) * family.recorded()).sum(axis=1).min() < most
