"""File locks, which the kernel releases when a process ends."""

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.errors import FileLockedError


class FileLock:
    """A lock on a file, held from construction to `release` or the end of the process.

    The file contains the process id of a holder and stays after the release.
    """

    def __init__(self, path: Path, *, wait: bool = False, shared: bool = False) -> None:
        """Take the lock; with `wait`, block until it is free; with `shared`, beside others that share it.

        Raises FileLockedError if another process holds it and `wait` is false, OSError if the file cannot be opened.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(self._descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            self.release()
            raise FileLockedError(f"{path}: locked by process {holder}. Wait until it ends.", holder) from None
        with contextlib.suppress(OSError):  # a full disk: the process id only serves messages
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Give the lock back. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
