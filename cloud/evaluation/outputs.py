"""Where results go: checked before any work, written as valid JSON, also of a failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import DataError, SettingsError, VedetteError


def check_place(path: Path | None, option: str) -> None:
    """Raise SettingsError unless a file can be at `path`."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise SettingsError(f"{path}: not a file in an existing folder. Give {option} another path.")


def write_failure(path: Path | None, error: VedetteError) -> None:
    """Write what went wrong in place of a result."""
    write_json(path, {"status": "failed", "error": str(error), "exit_code": error.exit_code})


def measured(
    measure: Callable[[], dict[str, Any]],
    json_path: Path | None,
    output: Path | None = None,
    page: Callable[[dict[str, Any]], str] = str,
) -> dict[str, Any]:
    """What `measure` finds, written as JSON to `json_path` and by `page` as a page to `output`, where they are given.

    Raises the VedetteError of `measure`, after it was written in place of a result; SettingsError for a place where
    nothing can be written, before anything is measured.
    """
    for path, option in ((json_path, "--json"), (output, "--output")):
        check_place(path, option)
    try:
        found = measure()
    except VedetteError as error:
        write_failure(json_path, error)
        raise
    write_json(json_path, found)
    if output is not None:
        output.write_text(page(found), encoding="utf-8")
    return found


def write_json(path: Path | None, value: dict[str, Any]) -> None:
    """Write a result, if it is wanted. Raises DataError if the disk refuses."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}).") from None
