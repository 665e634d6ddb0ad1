"""What was loaded, and what was checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """How a model was loaded. `str()` of it is for reading, `as_dict()` for machines.

    Attributes:
        model: the name it was asked for by.
        folder: where its files are.
        revision: their commit, None for a folder of the user's own and for the bundled checkpoint.
        code: the Python files that were run, with the SHA-256 of each.
        transformers: version that loaded it.
        device: where the parameters are.
        dtype: what the cast layers compute in.
        dtypes: of the parameters, by part of the model, with counts.
        attention: implementation, by transformers model inside.
        parameters: how many there are.
        bytes: of parameters and buffers in memory.
        dim: width of the vectors.
        drift: 1 - the smallest cosine between probes in the dtype that was asked for and in float32; None if not
            measured.
        seconds: from the call to a checked model.
        checks: what was verified, in words.
        warnings: what is odd and was let pass, in words.
    """

    model: str
    folder: str
    revision: str | None
    code: dict[str, str]
    transformers: str
    device: str
    dtype: str
    dtypes: dict[str, str]
    attention: dict[str, str]
    parameters: int
    bytes: int
    dim: int
    drift: float | None
    seconds: float
    checks: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain types."""
        return asdict(self) | {"checks": list(self.checks), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        lines = [f"{self.model}, revision {self.revision or 'none'}, from {self.folder}"]
        lines += [f"ran {name} (sha256 {digest})" for name, digest in self.code.items()]
        lines.append(
            f"{self.parameters:,} parameters, {self.bytes / 1e9:.2f} GB on {self.device} in {self.dtype}, "
            f"{self.dim} wide, ready in {self.seconds:.1f} s with transformers {self.transformers}"
        )
        lines += [f"dtypes of {part}: {dtypes}" for part, dtypes in self.dtypes.items()]
        lines += [f"attention of {part}: {name}" for part, name in self.attention.items()]
        if self.drift is not None:
            lines.append(f"probes in the dtype asked for differ from float32 by {self.drift:.1e} (1 - cosine)")
        lines += [f"checked: {check}" for check in self.checks]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)
