"""The exceptions of this package: one family, each message saying what was wrong, with which item, and what to do."""

from __future__ import annotations

from typing import Any


class ALM2VecError(Exception):
    """Base of every exception that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions travel between the processes of a pool; the default would call __init__ with the message alone.
        return _rebuild, (type(self), self.args, self.__dict__)


class InputError(ALM2VecError, ValueError):
    """An item, or an argument, is not what the call takes.

    Attributes:
        index: position of the item in the list it came in, or None.
        source: what the item was made from, as a short text, or None.
        reason: what was wrong, without the item's name.
    """

    def __init__(self, reason: str, *, index: int | None = None, source: str | None = None) -> None:
        self.reason = reason
        self.index = index
        self.source = source
        where = [f"item {index}"] if index is not None else []
        where += [source] if source is not None else []
        super().__init__(f"{', '.join(where)}: {reason}" if where else reason)

    def at(self, index: int) -> InputError:
        """The same error, naming the item's position."""
        return type(self)(self.reason, index=index, source=self.source)


class AudioError(InputError):
    """A clip cannot be opened, decoded or cut as asked."""


class AudioAccessError(InputError):
    """A reference points where `allowed_audio_roots` does not allow, or to a file whose bytes have changed."""


class CheckpointError(ALM2VecError):
    """A checkpoint cannot be found, is not trusted, or does not load as a model of this kind."""


class CheckpointUnavailableError(CheckpointError):
    """There is no checkpoint to judge.

    A wrong name, no such folder or revision, no way to the hub, no trust, or a package that its code needs and that
    cannot be imported.
    """


class ModelContractError(ALM2VecError):
    """The model answered in a way that its model card rules out."""


class MissingExtraError(ALM2VecError, ImportError):
    """A door was opened whose framework is not installed."""


class ALM2VecWarning(UserWarning):
    """Category of this package's warnings."""


def _rebuild(kind: type[ALM2VecError], args: tuple[Any, ...], state: dict[str, Any]) -> ALM2VecError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
