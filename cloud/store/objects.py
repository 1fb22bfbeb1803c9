"""Objects below a URL: a folder of another disk, or a prefix of an S3 bucket, through fsspec.

Credentials and the endpoint of S3 come from the environment or the files of the AWS command line, never from the URL.
"""

from pathlib import Path
from typing import Any

from shared.errors import StorageError
from shared.files import write_durably


class ObjectStore:
    """Objects by name; its calls block, and an object is durable when `write` returns."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system: Any = None
        self._root = ""

    def write(self, name: str, data: bytes) -> None:
        """Write an object in one piece, in place of an earlier one. Raises StorageError."""
        system = self._open()
        path = f"{self._root}/{name}"
        try:
            if "file" in system.protocol:
                write_durably(Path(path), data)
            else:
                system.pipe_file(path, data)
        except Exception as error:  # each file system has errors of its own
            raise self._failure("written", error) from error

    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none of that name. Raises StorageError."""
        system = self._open()
        try:
            return bytes(system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failure("read", error) from error

    def _open(self) -> Any:
        if self._system is None:
            from fsspec.core import url_to_fs

            try:
                self._system, self._root = url_to_fs(self.url)
            except ImportError as error:
                raise StorageError(f"{self.url}: needs {error.name or 's3fs'}: pip install 'vedette[s3]'.") from None
        return self._system

    def _failure(self, action: str, error: Exception) -> StorageError:
        reason = str(error) or type(error).__name__
        return StorageError(
            f"{self.url}: cannot be {action} ({reason}). Check the URL, AWS_ENDPOINT_URL and the credentials of S3."
        )
