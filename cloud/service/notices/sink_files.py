"""Files that the settings of a sink name: passwords and trusted certificates."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shared.errors import DataError

T = TypeVar("T")


def read_password(owner: str, path: Path | None) -> str:
    """Return the first line of a file, empty without one; raises DataError."""

    def first_line(path: Path) -> str:
        return path.read_text(encoding="utf-8").split("\n")[0].rstrip("\r")

    return _file(owner, "password_file", path, first_line, "")


def tls_context(owner: str, ca: Path | None) -> ssl.SSLContext:
    """Return TLS that trusts the authority in `ca`, by default those of the system; raises DataError."""

    def trusting(path: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=path)

    return _file(owner, "ca", ca, trusting, ssl.create_default_context())


def _file(owner: str, name: str, path: Path | None, read: Callable[[Path], T], default: T) -> T:
    try:
        return read(path) if path is not None else default
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Sink {owner!r}: {name} {path} cannot be used ({error}).") from None
