"""Where results of commands go: checked before any work, written as valid JSON, also of a failure."""

import json
import math
from pathlib import Path
from typing import Any

from shared.errors import DataError, SettingsError, VedetteError


def check_place(path: Path | None, option: str = "--json") -> None:
    """Raise SettingsError unless a file can be at `path`."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise SettingsError(f"{path}: not a file in an existing folder. Give {option} another path.")


def write_json(path: Path | None, value: dict[str, Any]) -> None:
    """Write a result, if it is wanted; a number that is none becomes null. Raises DataError if the disk refuses."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None


def write_failure(path: Path | None, error: VedetteError) -> None:
    """Write what went wrong in place of a result."""
    write_json(path, {"status": "failed", "error": str(error), "exit_code": error.exit_code})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
