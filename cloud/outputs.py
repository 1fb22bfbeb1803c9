"""Result files of commands: checked before the work, always valid JSON, also after a failure."""

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from shared.errors import FileNotWrittenError, SettingsError, VedetteError
from shared.files import write_durably


def check_output_path(path: Path | None, option: str = "--json") -> None:
    """Raise SettingsError unless a file can be written at `path`."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingsError(f"{path}: not a file in an existing folder. Give {option} another path.")
    if _is_replaced(path):
        reason = _reason_against(path.absolute().parent)
    else:
        reason = "" if os.access(path, os.W_OK) or not path.exists() else "Permission denied"
    if reason:
        raise SettingsError(f"{path}: cannot be written ({reason}). Give {option} another path.")


def check_output_folder(folder: Path | None, option: str) -> None:
    """Make a folder unless it exists; raise SettingsError unless files can be written there."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = _reason_against(folder)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise SettingsError(f"{folder}: cannot be written ({reason}). Give {option} another folder.")


def check_config_path(path: Path | None) -> None:
    """Raise SettingsError if the file of --config is absent, before anything is loaded or read."""
    if path is not None and not path.exists():
        raise SettingsError(f"{path}: no such file. Give the configuration's path with --config.")


def write_json(path: Path | None, value: dict[str, Any]) -> None:
    """Write a result as JSON unless `path` is None; NaN and infinity become null. Raises as `write_output`."""
    if path is not None:
        write_output(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_output(path: Path, text: str) -> None:
    """Write a text file. Raises FileNotWrittenError if that fails; an existing file is then unchanged."""
    data = text.encode()
    if _is_replaced(path):
        write_durably(path, data)
        return
    try:
        path.write_bytes(data)  # in place: /dev/stdout, a pipe
    except OSError as error:
        raise FileNotWrittenError(f"{path}: cannot be written ({error.strerror or error}).") from None


def write_failure(path: Path | None, error: VedetteError) -> None:
    """Write an error and its facts in place of a result; the caller raises it."""
    _write_end(path, "failed", str(error), error.exit_code, error.facts)


def write_interruption(path: Path | None) -> None:
    """Write that the user stopped the command, in place of a result."""
    _write_end(path, "stopped", "stopped before the end", 130)


@contextlib.contextmanager
def failure_as_json(path: Path | None) -> Iterator[None]:
    """Write a failure of the block, or an interruption, to `path` in place of a result."""
    check_output_path(path)
    try:
        yield
    except VedetteError as error:
        write_failure(path, error)
        raise
    except KeyboardInterrupt:
        write_interruption(path)
        typer.echo("vedette: stopped before the end.", err=True)
        raise typer.Exit(130) from None


def _is_replaced(path: Path) -> bool:
    """Return whether a new file takes the place of `path`; links, devices and pipes are written in place."""
    return not path.is_symlink() and (path.is_file() or not path.exists())


def _reason_against(folder: Path) -> str:
    """Return why no file can be written in a folder; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _write_end(path: Path | None, status: str, error: str, exit_code: int, facts: Mapping[str, object] = {}) -> None:
    try:
        write_json(path, {"status": status, "error": error, "exit_code": exit_code, **facts})
    except VedetteError as second:  # the command ends with the first error
        print(f"vedette: {second}", file=sys.stderr)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
