"""Disk cache of what tests train: one worker trains, the others and the next run read.

An entry is keyed by the code of the product and by its own name and arguments, so a change of code trains again.
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from shared.file_lock import FileLock

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "trained"
MAX_ENTRIES = 60


def cached_files(name: str, arguments: object, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make(folder)` filled, now or in an earlier run with the same code and arguments.

    Args:
        name: Name of the fixture.
        arguments: JSON-serialisable values that the result depends on beside the code.
        make: Fills an empty folder. Runs in one process at a time.
    """
    key = hashlib.sha256(json.dumps([name, arguments, _code_digest()], default=str, sort_keys=True).encode())
    target = FOLDER / f"{name}-{key.hexdigest()[:20]}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock"), wait=True):
        if target.is_dir():
            os.utime(target)
            return target
        unfinished = target.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(target)
    _prune()
    return target


@functools.cache
def _code_digest() -> str:
    """Return a digest of all modules that training runs, and of this interpreter's installed packages."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for top in ("cloud", "shared", "proto"):
        for path in sorted((ROOT / top).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _prune() -> None:
    """Delete the entries used least recently."""
    entries: list[tuple[float, Path]] = []
    for path in FOLDER.iterdir():
        if path.is_dir() and path.suffix != ".unfinished":
            entries.append((path.stat().st_mtime, path))
    for _, path in sorted(entries)[:-MAX_ENTRIES]:
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
