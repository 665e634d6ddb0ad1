"""Where a micro-batch's WAV files live between decoding and the forward pass: private, in memory, and never for long.

Every process has one folder under a folder that only its user can enter. A lock file inside it is held as long as
the process lives, by the operating system's own means, so a folder whose lock is free belongs to a dead process and
is removed when the next process makes its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ALM2VecError

logger = logging.getLogger(__name__)

SCRATCH_VARIABLE = "ALM2VEC_SCRATCH_DIR"
_MEMORY_BACKED = Path("/dev/shm")  # noqa: S108 - the folder made in it is private and checked to be


class Workspace:
    """One process's folder, made on first use."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._folder: Path | None = None
        self._alive: FileLock | None = None

    def new_folder(self) -> Path:
        """A fresh folder, for the caller to remove.

        Raises:
            ALM2VecError: no folder can be made, with what to set instead.
        """
        folder = self._own_folder()
        try:
            return Path(tempfile.mkdtemp(prefix="batch-", dir=folder))
        except OSError as error:
            raise _no_folder(error) from error

    def free_bytes(self) -> int:
        """Room where the folders are."""
        return shutil.disk_usage(self._own_folder()).free

    @contextmanager
    def batch_folder(self) -> Iterator[Path]:
        """`new_folder`, removed with all that is in it when the block ends, however it ends."""
        folder = self.new_folder()
        try:
            yield folder
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Remove the process's folder; a later use makes another."""
        with self._mutex:
            if self._folder is not None and self._alive is not None and self._folder.is_dir():
                # Under the root's lock, so that no other process sweeps the folder while it goes.
                with FileLock(self._folder.parent / "lock"):
                    self._alive.release()
                    shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = self._alive = None

    def forget_after_fork(self) -> None:
        """In a forked child: leave the parent's folder to the parent."""
        # Kept referenced: some versions of filelock unlock when the object goes, which would unlock the parent's.
        _inherited.append(self._alive)
        self.__init__()  # type: ignore[misc]

    def _own_folder(self) -> Path:
        with self._mutex:
            if self._folder is None or not self._folder.is_dir():
                try:
                    self._folder, self._alive = _claim(_private_root())
                except OSError as error:
                    raise _no_folder(error) from error
            return self._folder


def _no_folder(error: OSError) -> ALM2VecError:
    return ALM2VecError(
        f"no folder for temporary audio could be made ({error}): set {SCRATCH_VARIABLE} to one that can be written"
    )


def _private_root() -> Path:
    """This user's folder for all processes, which nobody else can enter."""
    chosen = os.environ.get(SCRATCH_VARIABLE)
    if chosen:
        parent = Path(chosen)
    elif _MEMORY_BACKED.is_dir() and os.access(_MEMORY_BACKED, os.W_OK | os.X_OK):
        parent = _MEMORY_BACKED
    else:
        parent = Path(tempfile.gettempdir())
        logger.info("no memory-backed folder here; temporary audio goes to %s", parent)
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    root = parent / f"alm2vec-{user}"
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    foreign = hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077)
    if not stat.S_ISDIR(status.st_mode) or foreign:
        raise ALM2VecError(
            f"{root} is not a folder that only you can enter: remove it, or set {SCRATCH_VARIABLE} to another place"
        )
    return root


def _claim(root: Path) -> tuple[Path, FileLock]:
    """A new folder under `root` and the lock that says its process lives; dead processes' folders are removed."""
    # Under the root's lock nobody can see a folder between its making and its locking.
    with FileLock(root / "lock"):
        for candidate in root.iterdir():
            if candidate.is_dir():
                _remove_if_abandoned(candidate)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        alive = FileLock(folder / "alive")
        alive.acquire()
        return folder, alive


def _remove_if_abandoned(folder: Path) -> None:
    try:
        lock = FileLock(folder / "alive")
        lock.acquire(timeout=0)
        lock.release()  # before removing: Windows keeps open files
        shutil.rmtree(folder)
    except Timeout:
        return
    except OSError as error:
        # What cannot be removed must not keep this process from working.
        logger.warning("%s was left by a process that was killed and cannot be removed: %s", folder, error)
        return
    logger.info("removed %s, left by a process that was killed", folder)


_inherited: list[FileLock | None] = []
workspace = Workspace()
atexit.register(workspace.remove)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workspace.forget_after_fork)
