"""A watched folder: each file is screened once and moved once it is durable, despite faults in between."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings.sources import ImageFolderSettings
from edge.sources import open_source
from edge.sources.watched import WatchedFolder, _read_cursor
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.edge.taking import take

SPEC = InputSpec(image_height=32, image_width=32)


def picture(level: int) -> bytes:
    return encode_png(np.full((32, 32, 3), level, np.uint8))


def put(folder: Path, name: str, data: bytes | None = None) -> None:
    """As a careful program does: written elsewhere, then moved in."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.part").write_bytes(picture(7) if data is None else data)
    (folder / f"{name}.part").rename(folder / name)


def wait_until_settled(folder: Path, settle_s: float = 0.05) -> None:
    """Return once no file has changed for `settle_s`, so that a watcher finds all at its first look."""
    while time.time() - max(path.stat().st_ctime for path in folder.iterdir()) < settle_s + 0.01:
        time.sleep(0.005)


class Watcher:
    def __init__(self, folder: Path, cursor: str = "", *, keeps: bool = True, **more: Any) -> None:
        """`keeps`: yielded samples are on disk at once."""
        self.stop, self._keeps, self.cursor = threading.Event(), keeps, cursor
        values = {"settle_s": 0.05, "poll_s": 0.01, **more}
        settings = ImageFolderSettings(id="door", kind="images", path=folder, bundle=Path("b"), watch=True, **values)
        source = open_source(settings, Modality.IMAGE, SPEC, self.stop, cursor)
        assert isinstance(source, WatchedFolder)
        self.source = source
        self.batches: Iterator[SampleBatch] = source.batches()
        self.reasons: list[str] = []

    def take(self, count: int) -> list[str]:
        return take(self.batches, self.stop, count, self._samples)

    def _samples(self, batch: SampleBatch) -> list[str]:
        self.reasons += [item.reason for item in batch.rejections]
        self.cursor = batch.cursor
        if self._keeps and batch.on_kept is not None:
            batch.on_kept()
        return [*batch.origins, *(item.origin for item in batch.rejections)]

    def finish(self) -> list[str]:
        """Whatever comes in a short time."""
        threading.Timer(0.3, self.stop.set).start()
        return [origin for batch in self.batches for origin in batch.origins]


def test_new_files_come_once_in_the_order_of_their_arrival_and_a_growing_one_when_it_is_whole(tmp_path: Path) -> None:
    put(tmp_path, "b.png")
    put(tmp_path, "sub/a.png")
    watcher = Watcher(tmp_path, settle_s=0.2)
    assert watcher.take(2) == ["b.png", "sub/a.png"]
    whole, growing = picture(3), tmp_path / "c.png"
    growing.write_bytes(whole[:20])
    (tmp_path / "notes.txt").write_text("no image")
    threading.Timer(0.1, lambda: growing.open("ab").write(whole[20:])).start()
    assert watcher.take(1) == ["c.png"]
    assert watcher.reasons == []
    assert watcher.finish() == []


def test_kept_files_are_not_screened_again_by_the_next_run_but_overwritten_ones_are(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path, f"{number}.png")
    wait_until_settled(tmp_path)
    first = Watcher(tmp_path, batch_size=2)
    assert first.take(4) == ["0.png", "1.png", "2.png", "3.png"]
    put(tmp_path, "0.png")
    assert Watcher(tmp_path, first.cursor).take(2) == ["4.png", "0.png"]
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("after", ["delete", "move"])
def test_screened_files_are_put_away_only_once_that_is_on_disk(tmp_path: Path, after: str) -> None:
    folder, done = tmp_path / "in", tmp_path / "done" if after == "move" else None
    put(folder, "a.png")
    put(folder, "sub/b.png")
    unsafe = Watcher(folder, keeps=False, after=after, done=done)
    unsafe.take(2)
    assert unsafe.finish() == []
    assert (folder / "a.png").exists()
    again = Watcher(folder, after=after, done=done)  # a power cut before it was on disk: screened again
    assert again.take(2) == ["a.png", "sub/b.png"]
    after_cut = Watcher(
        folder, again.cursor, after=after, done=done
    )  # a power cut after that, before they were put away
    put(folder, "c.png")
    assert after_cut.take(1) == ["c.png"]
    put(folder, "a.png")  # that name again
    assert after_cut.take(1) == ["a.png"]
    assert after_cut.finish() == []
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    if done is not None:
        names = sorted(path.relative_to(done).as_posix() for path in done.rglob("*.png"))
        assert names == ["a-2.png", "a.png", "c.png", "sub/b.png"]


def test_a_file_that_is_replaced_before_it_is_put_away_is_screened_too(tmp_path: Path) -> None:
    put(tmp_path, "a.png", picture(1))
    watcher = Watcher(tmp_path, after="delete")
    assert watcher.take(1) == ["a.png"]
    put(tmp_path, "a.png", picture(2))
    assert watcher.take(1) == ["a.png"]


def test_a_broken_file_is_rejected_and_put_away_as_any(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    put(folder, "bad.png", b"\x89PNG no image")
    watcher = Watcher(folder, after="move", done=tmp_path / "done")
    assert watcher.take(1) == ["bad.png"]
    assert watcher.reasons
    watcher.finish()
    assert (tmp_path / "done" / "bad.png").exists()


def test_a_folder_that_vanishes_is_reported_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    watcher = Watcher(folder, silent_after_s=0.05)
    states: list[str] = []
    steps = [
        lambda: states.append(watcher.source.health.state),
        lambda: shutil.rmtree(folder),
        lambda: states.append(watcher.source.health.state),
        lambda: put(folder, "a.png"),
    ]
    for number, step in enumerate(steps):
        threading.Timer(0.2 + 0.1 * number, step).start()
    assert watcher.take(1) == ["a.png"]
    assert states == ["silent", "unreadable"]
    assert watcher.source.health.is_well
    with pytest.raises(DataError, match="no such folder"):
        Watcher(tmp_path / "absent")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"loop": True, "watch": True}, "watch and loop"),
        ({"after": "delete"}, "set watch = true"),
        ({"watch": True, "after": "move"}, "done"),
        ({"watch": True, "done": "d"}, "go together"),
        ({"watch": True, "after": "move", "done": "in/done"}, "choose one outside"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageFolderSettings(id="s", kind="images", path=Path("in"), bundle=Path("b"), **more)


@given(st.text(max_size=40))
def test_any_text_may_stand_for_a_cursor(text: str) -> None:
    last, known = _read_cursor(text)
    assert isinstance(last.changed_ns, int)
    assert all(isinstance(file.name, str) for file in known)


def test_keeping_files_keeps_them_whatever_an_earlier_run_meant_to_do(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    deleting = Watcher(tmp_path, keeps=False, after="delete")
    deleting.take(1)
    put(tmp_path, "b.png")
    keeping = Watcher(tmp_path, deleting.cursor, after="keep")
    assert keeping.take(1) == ["b.png"]
    keeping.finish()
    assert (tmp_path / "a.png").exists()


def test_a_folder_below_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.sources import watched

    (tmp_path / "lost+found").mkdir()
    put(tmp_path, "a.png")
    scandir = watched.os.scandir

    def refuse(path: Path) -> Any:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(watched.os, "scandir", refuse)
    assert Watcher(tmp_path).take(1) == ["a.png"]
