"""The one place that says which extra to install when something optional is missing."""

from __future__ import annotations

import importlib.util

from .errors import MissingExtraError


def has(module: str) -> bool:
    """Whether `module` is installed."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it is in is not there either
        return False


def command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'alm2vec-integrations[{extra}]'"


def require(module: str, extra: str) -> None:
    """Raise unless `module` can be imported.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    if not has(module):
        raise MissingExtraError(f"{module} is not installed: {command(extra)}")
