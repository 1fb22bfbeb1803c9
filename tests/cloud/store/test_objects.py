"""Files of a folder as objects: durable, and not disturbed by others that remove empty folders."""

import os
from pathlib import Path

import pytest

from cloud.store import objects as objects_module
from cloud.store.objects import objects_at
from shared.errors import StorageError


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    objects, create, removals = objects_at(f"file://{tmp_path}"), os.open, list[int]()
    objects.write_new("hour/a", [b"x"])

    def removed_before(path, flags, *more):
        if flags & os.O_CREAT and len(removals) < 2:
            removals.append(1)
            objects_at(objects.url).remove(["hour/a"])
        return create(path, flags, *more)

    monkeypatch.setattr(os, "open", removed_before)
    objects.write_new("hour/b", [b"y"])
    assert len(removals) == 2
    assert objects.sizes("hour") == {"hour/b": 1}


def test_a_folder_of_another_process_is_made_durable_before_its_first_file(tmp_path, monkeypatch):
    synchronised = list[Path]()
    (tmp_path / "hour").mkdir()
    monkeypatch.setattr(objects_module, "synchronise_folder", synchronised.append)
    objects = objects_at(f"file://{tmp_path}")
    for name in ("hour/a", "hour/b"):
        objects.write_new(name, [b"x"])
    assert synchronised == [tmp_path, tmp_path / "hour", tmp_path / "hour"]


def test_a_removal_is_durable(tmp_path, monkeypatch):
    objects, synchronised = objects_at(f"file://{tmp_path}"), list[Path]()
    for name in ("one/a", "one/b", "two/a", "c"):
        objects.write_new(name, [b"x"])
    monkeypatch.setattr(objects_module, "synchronise_folder", synchronised.append)
    objects.remove(["one/a", "two/a", "two/gone", "c", "three/gone"])
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert set(synchronised) == {tmp_path, tmp_path / "one"}


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path):
    objects = objects_at(f"file://{tmp_path}/missing")
    objects.remove(["one/a"])
    with pytest.raises(StorageError, match="cannot be written"):
        objects.write_new("one/a", [b"x"])
    assert not (tmp_path / "missing").exists()
