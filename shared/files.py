"""Files that a crash leaves whole."""

import contextlib
import os
import secrets
from pathlib import Path

from shared.errors import FileNotWrittenError

_UNFINISHED = ".new"


def write_durably(path: Path, data: bytes, mode: int = 0o644, *, replace: bool = True) -> None:
    """Put `data` at `path` so that a crash, or another writer, leaves one whole content, never a mix.

    Raises FileNotWrittenError if it cannot be written, as on a full disk, and FileExistsError if `path` exists and
    `replace` is False.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, data, mode)
            if replace:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike a rename, fails where there is a file
        finally:
            temporary.unlink(missing_ok=True)
        _synchronise(path.parent)
    except FileExistsError:
        if replace:
            raise FileNotWrittenError(
                f"{path}: cannot be written, a file stands where a folder should. Move it away."
            ) from None
        raise
    except OSError as error:
        raise FileNotWrittenError(
            f"{path}: cannot be written ({error.strerror or error}). Free space there, or check its permissions."
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`; nobody else may be writing there."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            path.unlink()


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _synchronise(folder: Path) -> None:
    """Make the name itself durable, not only what it names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
