"""The one place that says which extra to install when a framework is missing."""

from __future__ import annotations

import importlib.util

from .errors import MissingExtraError


def require(module: str, extra: str) -> None:
    """Raise unless `module` can be imported.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed: pip install 'alm2vec-integrations[{extra}]'")
