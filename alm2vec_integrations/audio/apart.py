"""Decoding in processes of their own: the interpreter that gives a GPU its work has no time to spare for it.

Every thread that asks has a process of its own, which serves it until the thread ends. Nothing is shared with these
processes and nothing of the program's main module runs in them, so scripts need no guard. Only plain values go there.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from ..clips import AudioClip
from ..errors import ALM2VecError, AudioError, InputError
from .access import AccessPolicy
from .decoding import decode_all, measure

logger = logging.getLogger(__name__)

VARIABLE = "ALM2VEC_DECODING"
"""Environment: "threads", or "processes"; without it, processes beside a GPU, for calls of many files."""

_MANY = 128
"""Files in a call from which on there are processes; they are started once, which takes as long as decoding some."""

_START_SECONDS = 60.0
"""What has not answered by then is not a Python with this package."""

_END_SECONDS = 5.0
"""After which a process that should end is killed."""

_READY = b"alm2vec"

_MOST_FAILURES = 2

Length = float | InputError | MemoryError
Outcome = Exception | None


def wanted(device: str, files: int) -> bool:
    """Whether a call with so many files, for a model on `device`, should have them decoded apart.

    Raises:
        InputError: the environment asks for neither threads nor processes, or for processes where there are none.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "threads", "processes"):
        raise InputError(f'{VARIABLE} must be "threads" or "processes", got {asked!r}')
    if asked == "processes" and os.name != "posix":
        raise InputError(f"{VARIABLE}=processes needs a POSIX system: leave it out")
    if asked == "threads" or os.name != "posix" or _refused():
        return False
    return files > 0 if asked else files >= _MANY and not device.startswith("cpu")


def write(clips: Sequence[tuple[AudioClip, str]], policy: AccessPolicy) -> list[Outcome]:
    """`decode_all` of clips of files; an AudioError also for one that ends the process."""
    tasks = [(_plain(clip), path) for clip, path in clips]
    return _each("write", tasks, policy, [clip for clip, _ in clips], lambda: decode_all(clips, policy))


def seconds_of(clips: Sequence[AudioClip], policy: AccessPolicy) -> list[Length]:
    """The lengths of clips of files, or what `measure` raised; an AudioError also for one that ends the process."""
    tasks = [(_plain(clip), "") for clip in clips]
    return _each("measure", tasks, policy, clips, lambda: _measure_all(clips, policy))


def _each(
    verb: str,
    tasks: Sequence[tuple[dict[str, Any], str]],
    policy: AccessPolicy,
    clips: Sequence[AudioClip],
    here: Callable[[], list[Any]],
) -> list[Any]:
    """The answers to tasks, asked for together; one by one if the process ends; here if there is no other way."""
    process = _own()
    if process is None:
        return here()
    try:
        found = process.ask(verb, tasks, policy.roots)
        return here() if found is None else found
    except _EndedError as error:
        logger.warning("a process for decoding ended (%s) at one of %d files", _said(error.code), len(clips))
    answers: list[Any] = []
    for task, clip in zip(tasks, clips, strict=True):
        process = _own()
        if process is None:  # and what ended the other may end this one
            answers.append(_ended(clip))
            continue
        try:
            found = process.ask(verb, [task], policy.roots)
            answers.append(_ended(clip) if found is None else found[0])
        except _EndedError as error:
            answers.append(_blame(error.code, clip))
    return answers


def _ended(clip: AudioClip) -> AudioError:
    return AudioError(
        "could not be read: the process that decoded it ended, and there is no other: try again", source=clip.name
    )


def _blame(code: int, clip: AudioClip) -> Exception:
    if code == -signal.SIGKILL:  # most often an operating system's that runs out of memory
        return MemoryError()
    return AudioError(f"could not be read: the decoder crashed on it ({_said(code)}): leave it out", source=clip.name)


def _plain(clip: AudioClip) -> dict[str, Any]:
    """A clip of a file as values that mean the same in every process."""
    return {
        "source": str.__str__(str(clip.path)),
        "start_seconds": clip.start_seconds,
        "end_seconds": clip.end_seconds,
        "digest": clip.digest,
        "label": None if clip.label is None else str.__str__(clip.label),
        "is_reference": clip.is_reference,
    }


def _measure_all(clips: Sequence[AudioClip], policy: AccessPolicy) -> list[Length]:
    found: list[Length] = []
    for clip in clips:
        try:
            found.append(measure(clip, policy).seconds)
        except (InputError, MemoryError) as error:
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
        OSError: it cannot be started, or does not answer as it should.
    """

    def __init__(self) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise OSError("the program is not run by a Python of its own")
        with _starting:
            self._start()
        weakref.finalize(self, _end, os.getpid(), self._process, self._connection)
        if not self._is_ready():
            _kill(self._process)
            raise OSError(f"{sys.executable} ended or did not answer")

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                process_group=0,  # what a terminal sends to the program's group is not meant for it
            )
        _live.add(self)

    def _is_ready(self) -> bool:
        try:
            return self._connection.poll(_START_SECONDS) and self._connection.recv_bytes() == _READY
        except (EOFError, OSError):
            return False

    def ask(self, verb: str, tasks: Sequence[tuple[dict[str, Any], str]], roots: Sequence[str]) -> list[Any] | None:
        """The answers to tasks; None if the process cannot go to the folder that paths are relative to.

        Raises:
            _EndedError: the process has ended.
        """
        plain = [str.__str__(root) for root in roots]
        folder = ""  # as good as any
        if not all(map(os.path.isabs, [*plain, *(fields["source"] for fields, _ in tasks)])):
            try:
                folder = str(Path.cwd())
            except OSError:  # it has been removed
                return None
        try:
            self._connection.send((verb, folder, plain, tasks))
            answers: list[Any] | None = self._connection.recv()
        except (EOFError, OSError):
            _state.process = None
            raise _EndedError(_ended_with(self._process)) from None
        except BaseException:  # an interrupt: an answer that comes now would be taken for that to another question
            _state.process = None
            _kill(self._process)
            raise
        return answers

    def forget(self) -> None:
        """In a forked child: let the process end with the parent."""
        self._connection.close()


def _environment() -> dict[str, str]:
    paths = [path or str(Path.cwd()) for path in sys.path if isinstance(path, str)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Should sys.executable be the program itself, it must not start processes in turn.
    return os.environ | one | {"PYTHONPATH": os.pathsep.join(paths), VARIABLE: "threads"}


def _end(owner: int, process: subprocess.Popen[bytes], connection: Connection) -> None:
    """Have a process end, as it does at the end of its input; kill it if it does not."""
    if os.getpid() != owner:  # a forked child, which has closed its end
        return
    connection.close()
    _ended_with(process)


def _ended_with(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process that ends by itself, or is killed now."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has not been waited for, and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class _State(threading.local):
    """Each thread's process."""

    process: _Process | None = None


_state = _State()
_failures = 0  # to start one, since one was started
_starting = threading.Lock()  # a fork in the middle of it would keep what the child cannot know of
_live: weakref.WeakSet[_Process] = weakref.WeakSet()


def _own() -> _Process | None:
    """This thread's process, started now if there is none; None if that fails."""
    global _failures
    if _state.process is None and not _refused():
        try:
            _state.process = _Process()
            _failures = 0
        except (OSError, ValueError, RuntimeError) as error:
            _failures += 1
            until = "from now on" if _refused() else "for now"
            logger.warning("no process for decoding can be started (%s): decoding in threads %s", error, until)
    return _state.process


def _refused() -> bool:
    """Whether there can be no processes here: one that was killed while it started does not say so yet."""
    return _failures >= _MOST_FAILURES


def _said(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"
    except ValueError:
        return f"signal {-code}"


def serve(descriptor: int) -> None:
    """What a process does: answer one question after another until the program that asks has ended.

    Args:
        descriptor: of the connection to it.
    """
    with Connection(descriptor) as connection:
        try:
            connection.send_bytes(_READY)
            while True:
                verb, folder, roots, tasks = connection.recv()
                if not _entered(folder):
                    connection.send(None)
                    continue
                policy = AccessPolicy(roots)
                clips = [(AudioClip(fields.pop("source"), **fields), path) for fields, path in tasks]
                found = decode_all(clips, policy) if verb == "write" else _measure_all([c for c, _ in clips], policy)
                connection.send([_sendable(each, clip) for each, (clip, _) in zip(found, clips, strict=True)])
        except (EOFError, ConnectionError):
            return


def _entered(folder: str) -> bool:
    try:
        if folder:
            os.chdir(folder)
    except OSError:
        return False
    return True


def _sendable(answer: Any, clip: AudioClip) -> Any:
    """An answer that the other side knows, too: its own exceptions, which say all in words."""
    if isinstance(answer, MemoryError):
        return MemoryError()  # of any kind, numpy's own too
    if isinstance(answer, Exception) and not isinstance(answer, ALM2VecError):
        return AudioError(f"could not be read: {type(answer).__name__}: {answer}", source=clip.name)
    return answer


def _forget_after_fork() -> None:
    global _state, _live
    _starting.release()
    for process in list(_live):
        process.forget()
    _state, _live = _State(), weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_forget_after_fork)
