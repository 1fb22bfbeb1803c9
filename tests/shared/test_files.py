"""Files that are written durably, or not at all."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from shared.errors import StorageError
from shared.files import write_durably


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_durably(path, b"one", mode=0o600)
    write_durably(path, b"two", mode=0o640)

    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["c.bin"]


def test_a_full_disk_is_reported_and_leaves_the_old_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"state\.json: cannot be written \(No space left on device\)") as caught:
        write_durably(path, b"new")
    assert isinstance(caught.value, OSError)  # the handler of full disks handles it
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_device_that_is_always_full_is_reported() -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_durably(Path("/dev/full/state.json"), b"new")


def test_a_folder_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StorageError):
        write_durably(tmp_path / "state.json", b"new")
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(StorageError):
        write_durably(tmp_path / "plain" / "state.json", b"new")


def test_without_replacement_the_first_writer_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_durably(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_durably(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_readers_see_one_whole_content_while_many_write(tmp_path: Path) -> None:
    path = tmp_path / "status"
    contents = [bytes([65 + number]) * 5000 for number in range(4)]
    write_durably(path, contents[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    def write(content: bytes) -> None:
        for _ in range(15):
            write_durably(path, content)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert [entry.name for entry in tmp_path.iterdir()] == ["status"]
