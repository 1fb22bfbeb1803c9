"""Exclusive locks between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import FileLockedError
from shared.file_lock import FileLock


def test_a_second_holder_is_refused_until_the_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(FileLockedError) as caught:
        FileLock(path)
    assert caught.value.holder == str(os.getpid())
    FileLock(path).release()


def test_the_lock_is_free_after_its_process_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "import os, sys; from pathlib import Path; from shared.file_lock import FileLock\n"
    code += "lock = FileLock(Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.read_text().strip() != str(os.getpid())
    FileLock(path).release()


def test_a_waiting_holder_gets_the_lock_after_the_release(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from shared.file_lock import FileLock\n"
    code += "print('started', flush=True); FileLock(Path(sys.argv[1]), wait=True); print('held', flush=True)"
    with FileLock(tmp_path / "lock"):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        assert child.poll() is None
    assert child.communicate(timeout=20)[0] == "held\n"


def test_a_folder_that_is_missing_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "missing" / "lock")
