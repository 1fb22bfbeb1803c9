"""A file that grows: no row is missed and none counted twice, through rotation, truncation, restarts and kill -9."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings.sources import TailSettings
from edge.sources import open_source
from edge.sources.tail import READ_BYTES, Cursor, TailSource
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.edge.taking import take

ROWS = InputSpec(channels=("b", "a"))
WINDOWS = InputSpec(channels=("b", "a"), window_length=3, window_stride=2)
HEADER = "a,x,b\n"


def lines(*numbers: int) -> str:
    return "".join(f"{number},0,{-number}\n" for number in numbers)


class Reader:
    """A source, read batch by batch; `take` waits for as many samples, and goes on afterwards."""

    def __init__(self, path: Path, cursor: str = "", spec: InputSpec = ROWS, **more: Any) -> None:
        self.stop = threading.Event()
        settings = TailSettings(id="log", kind="tail", path=path, bundle=Path("b"), poll_s=0.01, **more)
        modality = Modality.SERIES if spec.window_length else Modality.TABULAR
        source = open_source(settings, modality, spec, self.stop, cursor)
        assert isinstance(source, TailSource)
        self.source = source
        self.batches: Iterator[SampleBatch] = source.batches()
        self.cursor = cursor
        self.reasons: list[str] = []

    def take(self, count: int) -> list[Any]:
        return take(self.batches, self.stop, count, self._samples)

    def _samples(self, batch: SampleBatch) -> list[Any]:
        self.reasons += [f"{item.origin} {item.reason}" for item in batch.rejections]
        self.cursor = batch.cursor
        values: list[Any] = np.asarray(batch.values)[..., 1].tolist()
        return values


def test_rows_come_as_they_are_added_and_a_half_written_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    reader = Reader(path)
    path.write_text(HEADER + lines(1, 2) + "3,0")
    assert reader.take(2) == [1, 2]
    with path.open("a") as file:
        file.write(",-3\r\n\n" + lines(4))
    assert reader.take(2) == [3, 4]


def test_the_next_run_goes_on_behind_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(*range(10)))
    first = Reader(path, batch_size=4)
    assert first.take(8) == list(range(8))
    assert Reader(path, first.cursor).take(2) == [8, 9]


def test_windows_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(*range(20)))
    expected = [list(range(start, start + 3)) for start in range(0, 18, 2)]
    cursor, found = "", []
    for _ in expected:  # a run for each window
        reader = Reader(path, cursor, WINDOWS, batch_size=1)
        found += reader.take(1)
        cursor = reader.cursor
    assert found == expected


@pytest.mark.parametrize("while_away", [False, True])
def test_a_rotated_file_is_read_to_its_end_before_the_new_one(tmp_path: Path, while_away: bool) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(1, 2))
    reader = Reader(path)
    assert reader.take(2) == [1, 2]
    with path.open("a") as file:
        path.rename(tmp_path / "log.csv.1")
        file.write(lines(3) + "4,0,-4")  # its writer had it open, and did not end the last line
    path.write_text(HEADER + lines(5))
    if while_away:
        reader = Reader(path, reader.cursor)
    assert reader.take(3) == [3, 4, 5]


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(1, 2, 3))
    reader = Reader(path)
    assert reader.take(3) == [1, 2, 3]
    os.truncate(path, 0)
    with path.open("a") as file:
        file.write(HEADER + lines(7))
    assert reader.take(1) == [7]


def test_another_file_of_the_same_name_is_no_old_friend(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(1, 2))
    reader = Reader(path)
    reader.take(2)
    path.write_text(HEADER + lines(8, 9, 10))  # the same inode, other content
    assert Reader(path, reader.cursor).take(3) == [8, 9, 10]


def test_from_the_end_if_asked_to_but_only_at_the_first_run(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(*range(30_000)) + "30000,0")
    reader = Reader(path, from_start=False)
    threading.Timer(0.3, lambda: path.open("a").write(",1\n" + lines(30_001))).start()
    assert reader.take(2) == [30_000, 30_001]
    with path.open("a") as file:
        file.write(lines(30_002))
    assert Reader(path, reader.cursor, from_start=False).take(1) == [30_002]


def test_odd_lines_are_rejected_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,0,-1\nx,0,1\n2\n" + "9" * (READ_BYTES + 10) + "\n" + lines(5))
    reader = Reader(path)
    assert reader.take(2) == [1, 5]
    assert [reason.split()[0] for reason in reader.reasons[:2]] == ["log.csv@13", "log.csv@19"]
    assert any("without an end" in reason for reason in reader.reasons)


def test_a_file_that_is_not_there_or_silent_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    reader = Reader(path, silent_after_s=0.05)
    threading.Timer(0.2, lambda: path.write_text(HEADER + lines(1))).start()
    states = []
    threading.Timer(0.1, lambda: states.append(reader.source.health.state)).start()
    reader.take(1)
    threading.Timer(0.2, lambda: states.append(reader.source.health.state)).start()
    threading.Timer(0.3, lambda: path.open("a").write(lines(2))).start()
    reader.take(1)
    assert states == ["waiting", "silent"]
    assert reader.source.health.is_well


def test_a_file_without_the_bundle_s_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,c\n1,2\n")
    with pytest.raises(DataError, match="lacks column 'b'"):
        Reader(path).take(1)


@given(st.text(max_size=60))
def test_any_text_as_a_cursor_is_a_cursor_or_none(text: str) -> None:
    cursor = Cursor.from_text(text)
    assert cursor is None or Cursor.from_text(cursor.to_text()) == cursor


def test_a_power_cut_that_took_the_writer_s_last_rows_repeats_none(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(*range(500)))
    reader = Reader(path, batch_size=500)
    assert reader.take(500) == list(range(500))
    os.truncate(path, path.stat().st_size - 13)
    threading.Timer(0.3, lambda: path.open("a").write("\n" + lines(900))).start()
    found = Reader(path, reader.cursor, batch_size=500).take(2)
    assert found[-1] == 900  # and the rest of the row that was cut


def test_a_row_that_its_writer_has_not_ended_at_the_rotation_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    writer = path.open("w")
    writer.write(HEADER + lines(1) + "12,0,-3.")
    writer.flush()
    reader = Reader(path)
    assert reader.take(1) == [1]
    path.rename(tmp_path / "log.csv.1")
    path.touch()  # as logrotate's `create` does, before the writer hears of it

    def goes_on() -> None:
        time.sleep(0.3)
        writer.write("25\n" + lines(13))
        writer.close()
        path.write_text(HEADER + lines(14))

    threading.Thread(target=goes_on).start()
    assert reader.take(3) == [12, 13, 14]
    assert reader.reasons == []


def test_files_rotated_twice_while_nobody_read_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(1))
    reader = Reader(path)
    assert reader.take(1) == [1]
    with path.open("a") as file:
        file.write(lines(2))
    for number, age_s in ((2, 20), (3, 10), (4, 0)):
        content = HEADER + lines(number + 1) if number < 4 else ""
        for old in (2, 1):
            if (tmp_path / f"log.csv.{old}").exists():
                (tmp_path / f"log.csv.{old}").rename(tmp_path / f"log.csv.{old + 1}")
        if number < 4:
            path.rename(tmp_path / "log.csv.1")
            path.write_text(content)
            os.utime(tmp_path / "log.csv.1", (time.time() - age_s - 5,) * 2)
    (tmp_path / "log.csv.9.gz").write_bytes(b"\x1f\x8b compressed")
    assert Reader(path, reader.cursor).take(3) == [2, 3, 4]


def test_a_truncated_file_whose_header_is_not_written_again_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines(1, 2, 3))
    reader = Reader(path)
    assert reader.take(3) == [1, 2, 3]
    path.write_text(lines(7))
    assert reader.take(1) == [7]


def test_of_a_file_that_comes_later_all_is_new(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    reader = Reader(path, from_start=False)
    threading.Timer(0.2, lambda: path.write_text(HEADER + lines(1, 2))).start()
    assert reader.take(2) == [1, 2]


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.mark.parametrize("first", ["5,60,0,3", "x9,60,0,3", "??,??,??"])
def test_a_first_row_that_does_not_fit_is_rejected_and_the_next_ones_are_read(tmp_path: Path, first: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + first + "\n")
    reader = Reader(path, stop_after_s=20.0)
    threading.Timer(0.2, add, (path, "oops,oops,oops\n" + lines(1))).start()
    assert reader.take(1) == [1]
    add(path, lines(2))
    assert reader.take(1) == [2]
    assert [reason.split()[0] for reason in reader.reasons] == ["log.csv@6", f"log.csv@{7 + len(first)}"]


def test_row_numbers_are_recognised_in_rows_that_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "7," + lines(1))
    reader = Reader(path, stop_after_s=20.0)
    threading.Timer(0.2, add, (path, "8," + lines(2))).start()
    assert reader.take(2) == [1, 2]
    add(path, "5," + lines(3) + "6," + lines(4))
    assert reader.take(1) == [4]
    assert len(reader.reasons) == 1
    assert "row number '5'" in reader.reasons[0]


@pytest.mark.parametrize("spec", [ROWS, WINDOWS])
def test_an_undecided_row_of_a_rotated_file_is_rejected_and_the_new_file_read(tmp_path: Path, spec: InputSpec) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "7,60,0,3\n")
    reader = Reader(path, spec=spec, stop_after_s=20.0)

    def rotate() -> None:
        path.rename(tmp_path / "log.csv.1")
        path.write_text(HEADER + lines(1, 2, 3))

    threading.Timer(0.3, rotate).start()
    expected = [[1, 2, 3]] if spec.window_length else [1, 2, 3]
    assert reader.take(len(expected)) == expected
    assert [reason.split()[0] for reason in reader.reasons] == ["log.csv@6"]


def test_an_undecided_row_is_read_again_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "7," + lines(1))
    first = Reader(path, stop_after_s=0.3)
    assert not list(first.batches)
    add(path, "8," + lines(2))
    assert Reader(path, first.cursor, stop_after_s=20.0).take(2) == [1, 2]
