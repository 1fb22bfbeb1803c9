"""Durable files: a crash leaves the old or the new content."""

import contextlib
import os
import secrets
from pathlib import Path

from shared.errors import FileNotWrittenError

_UNFINISHED = ".new"


def write_durably(path: Path, data: bytes, mode: int = 0o644, *, replace: bool = True) -> None:
    """Write `data` to `path` atomically: a crash or another writer never leaves a mix of contents.

    Raises FileNotWrittenError if the file cannot be written, such as on a full disk; FileExistsError if `path` exists
    and `replace` is False.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, data, mode)
            if replace:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike a rename, fails if the file exists
        finally:
            temporary.unlink(missing_ok=True)
        synchronise_folder(path.parent)
    except FileExistsError:
        if replace:
            raise FileNotWrittenError(
                f"{path}: cannot be written: a file is in place of a folder. Move it away."
            ) from None
        raise
    except OSError as error:
        raise FileNotWrittenError(
            f"{path}: cannot be written ({error.strerror or error}). Free space there, or check its permissions."
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of killed writers from `folder`; no other process may write there."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            path.unlink()


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def synchronise_folder(folder: Path) -> None:
    """Make the directory entry durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
