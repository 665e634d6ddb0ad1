"""What a model returned, as rows that can be relied on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelContractError

# Squares of components must neither vanish nor overflow in float32 when a vector is normalised.
_SHORTEST, _LONGEST = 1e-9, 1e15


def as_rows(output: Any, *, rows: int, dim: int | None, model: str) -> npt.NDArray[np.float32]:
    """What `encode` returned, as float32 [rows, dim] on the CPU.

    Raises:
        ModelContractError: not floating point, not two-dimensional, another number of rows or width, values that
            are not finite, or a vector of zeros.
    """
    import torch

    try:
        tensor = torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"{model}: encode returned {type(output).__name__}, not a tensor or array ({error})"
        ) from error
    if tensor.ndim != 2 or tensor.shape[0] != rows or (dim is not None and tensor.shape[1] != dim):
        expected = f"[{rows}, {'any width' if dim is None else dim}]"
        raise ModelContractError(
            f"{model}: encode returned shape {list(tensor.shape)} where {expected} was due: it "
            "does not answer each item with one vector, and its code has to be mended"
        )
    if not tensor.is_floating_point():
        raise ModelContractError(f"{model}: encode returned {tensor.dtype}, not floating-point vectors")
    try:
        # A copy: the model may use its own memory again for the next call.
        vectors: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32, copy=True).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelContractError(f"{model}: encode returned a tensor without plain values ({error})") from error
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        raise ModelContractError(
            f'{model}: encode returned NaN or infinity in rows {bad}: pass dtype="float32" if less was '
            "used; else leave these items out, as encode_partial does, or fetch the checkpoint again if none works"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not ((lengths > _SHORTEST) & (lengths < _LONGEST)).all():
        raise ModelContractError(
            f"{model}: encode returned vectors of length {lengths.min():.1e} to {lengths.max():.1e}, which cannot be "
            "scaled to length 1 in float32 (all zeros have no direction)"
        )
    return vectors
