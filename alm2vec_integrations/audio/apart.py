"""Decoding in processes of their own: the interpreter that gives a GPU its work has no time to spare for it.

Every thread that asks has a process of its own, which serves it until the thread ends. Nothing is shared with these
processes and nothing of the program's main module runs in them, so scripts need no guard.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ..clips import AudioClip
from ..errors import AudioError, InputError
from .access import AccessPolicy
from .decoding import decode_all, measure

logger = logging.getLogger(__name__)

VARIABLE = "ALM2VEC_DECODING"
"""Environment: "threads", or "processes"; without it, processes beside a GPU, for calls of many files."""

_MANY = 64
"""Files in a call from which on processes are worth their start, of about half a second."""

_START_SECONDS = 60.0
"""A process that has not answered by then is none of Python's."""


def wanted(device: str, files: int) -> bool:
    """Whether a call with so many files, for a model on `device`, should have them decoded apart.

    Raises:
        InputError: the environment asks for neither threads nor processes.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "threads", "processes"):
        raise InputError(f'{VARIABLE} must be "threads" or "processes", got {asked!r}')
    if asked or not files or _state.refused:
        return asked == "processes" and not _state.refused and files > 0
    return not device.startswith("cpu") and files >= _MANY


def write(clips: Sequence[tuple[AudioClip, str]], policy: AccessPolicy) -> list[Exception | None]:
    """`decode_all` of clips of files, apart; here if there can be no process."""
    try:
        return _ask(decode_all, [(_plain(clip), path) for clip, path in clips], policy)  # type: ignore[no-any-return]
    except _EndedError as error:
        logger.warning("a process for decoding ended (%s) at one of %d files", _said(error.code), len(clips))
        return [_write_alone(clip, path, policy) for clip, path in clips]


def _write_alone(clip: AudioClip, path: str, policy: AccessPolicy) -> Exception | None:
    """One clip, after a process has ended: it or another may be to blame, or nobody."""
    try:
        return _ask(decode_all, [(_plain(clip), path)], policy)[0]  # type: ignore[no-any-return]
    except _EndedError as error:
        if error.code == -getattr(signal, "SIGKILL", 9):  # as an operating system does that runs out of memory
            return MemoryError()
        return AudioError(
            f"could not be read: the decoder crashed on it ({_said(error.code)}): leave it out", source=clip.name
        )


def seconds_of(clips: Sequence[AudioClip], policy: AccessPolicy) -> list[float | InputError]:
    """The lengths of clips by `measure`, or what it raised."""
    try:
        return _ask(_measure, [_plain(clip) for clip in clips], policy)  # type: ignore[no-any-return]
    except _EndedError as error:
        logger.warning("a process for decoding ended (%s) at the headers of %d files", _said(error.code), len(clips))
        return _measure(clips, policy)


def _plain(clip: AudioClip) -> AudioClip:
    """The clip with its path as text, which can be sent."""
    return clip if isinstance(clip.source, str) else replace(clip, source=clip.path)


def _measure(clips: Sequence[AudioClip], policy: AccessPolicy) -> list[float | InputError]:
    found: list[float | InputError] = []
    for clip in clips:
        try:
            found.append(measure(clip, policy).seconds)
        except InputError as error:
            found.append(error)
    return found


class _EndedError(Exception):
    """A process ended instead of answering.

    Attributes:
        code: its exit status; below 0 that of a signal.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Process:
    """One process, for one thread.

    Raises:
        OSError: it cannot be started, or does not answer.
    """

    def __init__(self) -> None:
        paths = [path or str(Path.cwd()) for path in sys.path]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdin is not None  # noqa: S101 - as asked for
        assert self._process.stdout is not None  # noqa: S101
        self._tasks, self._replies = self._process.stdin, self._process.stdout
        weakref.finalize(self, _end, self._process, self._tasks, self._replies)
        late = threading.Timer(_START_SECONDS, self._process.kill)
        late.start()
        try:
            self._reply()
        except _EndedError as error:
            raise OSError(f"{sys.executable} ended ({_said(error.code)}) before it answered") from error
        finally:
            late.cancel()

    def ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work` returns, or raises, there.

        Raises:
            _EndedError: the process has ended.
        """
        task = pickle.dumps((work, arguments))
        try:
            self._tasks.write(task)
            self._tasks.flush()
        except OSError:
            raise _EndedError(self._process.wait()) from None
        failed, found = self._reply()
        if failed:
            raise found
        return found

    def _reply(self) -> tuple[bool, Any]:
        try:
            return pickle.load(self._replies)  # type: ignore[no-any-return]  # noqa: S301 - written by `serve`
        except (EOFError, pickle.UnpicklingError):
            self._process.kill()  # what answers something else is of no use
            raise _EndedError(self._process.wait()) from None


def _end(process: subprocess.Popen[bytes], *pipes: IO[bytes]) -> None:
    """At the end of its input the process ends by itself."""
    for pipe in pipes:
        try:
            pipe.close()
        except OSError:  # something was left to be written, to a process that has ended
            logger.debug("a pipe of an ended process", exc_info=True)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _State(threading.local):
    """Each thread's process."""

    process: _Process | None = None
    refused = False  # for all threads, on the class: there can be no processes here


_state = _State()


def _ask(work: Callable[..., Any], *arguments: Any) -> Any:
    if _state.process is None and not _state.refused:
        try:
            _state.process = _Process()
        except OSError as error:
            _State.refused = True
            logger.warning("no process for decoding can be started (%s): decoding in threads from now on", error)
    if _state.process is None:
        return work(*arguments)
    try:
        return _state.process.ask(work, *arguments)
    except _EndedError:
        _state.process = None
        raise


def _said(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"
    except ValueError:
        return f"signal {-code}"


def serve() -> None:
    """What a process does: answer one task after another until its input ends, with the program that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the others may want to go on
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders print
    _answer(replies, (False, None))
    while True:
        try:
            work, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by `_Process`
        except EOFError:
            return
        try:
            reply = False, work(*arguments)
        except Exception as error:
            reply = True, error
        _answer(replies, reply)


def _answer(replies: IO[bytes], reply: tuple[bool, Any]) -> None:
    pickle.dump(reply, replies)
    replies.flush()


def _forget_after_fork() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
