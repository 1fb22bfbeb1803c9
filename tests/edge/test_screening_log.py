"""The screening log survives a kill in the middle of a line."""

import csv
from pathlib import Path

import numpy as np
import pytest

from edge.routing.screening_log import HEADER, ScreeningLog


def write_row(path: Path, origin: str) -> None:
    log = ScreeningLog(path)
    log.write([origin], np.array([2.5]), np.array([0.5]), np.zeros(1, np.int8), {})
    log.close()


def origins(path: Path) -> list[str]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and row["score"] == "2.5" for row in rows)
    return [row["origin"] for row in rows]


@pytest.mark.parametrize("lost_bytes", [1, 5, 12])
def test_half_a_line_that_a_kill_left_does_not_spoil_the_next(tmp_path: Path, lost_bytes: int) -> None:
    path = tmp_path / "screening.csv"
    write_row(path, "first")
    write_row(path, "second")
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    write_row(path, "third")
    assert origins(path) == ["first", "third"]


def test_half_a_header_is_written_anew_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "screening.csv"
    path.write_text(",".join(HEADER)[:7])
    write_row(path, "first")
    write_row(path, "second")
    assert origins(path) == ["first", "second"]
