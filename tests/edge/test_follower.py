"""Events of a growing file: opened, lines, rotated, truncated, lost, idle."""

import os
from pathlib import Path
from typing import Any

import pytest

from edge.sources.follower import FileFollower, Idle, Lines, Lost, Opened, Rotated, Truncated


def until_idle(events: Any) -> list[Any]:
    """Events up to the first of being idle, which is left out; a wait between two files counts as none."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, Idle):
            return found
        found.append(event)
    return found


def texts(found: list[Any]) -> list[str]:
    return [line.text for event in found if isinstance(event, Lines) for line in event.lines]


def test_a_file_is_opened_and_its_lines_come_in_bounded_portions(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    follower = FileFollower(path, max_lines=2)
    events = follower.events()
    assert next(events) == Idle(f"there is no {path}")
    path.write_text("a,b\n1,2\n3,4\n5,6\n7")
    opened, first, second = until_idle(events)
    assert opened == Opened(path, "a,b", "utf-8")
    assert [line.start for line in first.lines] == [4, 8]
    assert (first.at_start, second.at_start) == (True, False)
    assert texts([second]) == ["5,6"]
    follower.close()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_lines_of_other_encodings_are_split_at_characters(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("a,\u0a0a\n1,2\n\u010a,3\n".encode(encoding))
    follower = FileFollower(path, max_lines=9)
    opened, lines = until_idle(follower.events())
    assert opened.header == "a,\u0a0a"
    assert texts([lines]) == ["1,2", "\u010a,3"]
    follower.close()


def test_a_rotation_and_a_truncation_are_events_before_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a\n1\n")
    follower = FileFollower(path, max_lines=9)
    events = follower.events()
    assert texts(until_idle(events)) == ["1"]
    path.rename(tmp_path / "log.csv.1")
    path.write_text("a\n2\n")
    found = [*until_idle(events), *until_idle(events)]
    assert [type(event) for event in found] == [Rotated, Opened, Lines]
    assert texts(found) == ["2"]
    os.truncate(path, 0)
    path.write_text("9\n")
    truncated, opened = until_idle(events)
    assert truncated == Truncated(path)
    assert opened == Opened(path, "9", "utf-8", is_truncated=True)
    follower.rewind()
    assert texts(until_idle(events)) == ["9"]
    follower.close()


def test_a_cursor_resumes_in_a_renamed_file_and_one_without_its_file_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a\n1\n2\n")
    follower = FileFollower(path, max_lines=1)
    events = follower.events()
    next(events)
    assert texts([next(events)]) == ["1"]
    cursor = follower.cursor(follower.offset, 3)
    follower.close()
    path.rename(tmp_path / "log.csv.1")
    path.write_text("a\n5\n")
    again = FileFollower(path, max_lines=1, cursor=cursor)
    found = again.events()
    assert next(found) == Opened(tmp_path / "log.csv.1", "a", "utf-8", skip=3)
    assert texts([next(found)]) == ["2"]
    again.close()
    (tmp_path / "log.csv.1").unlink()
    lost = FileFollower(path, max_lines=1, cursor=cursor)
    assert [type(event) for event in until_idle(lost.events())] == [Lost, Opened, Lines]
    lost.close()
