"""Tests of the progress of long runs, on a clock that the test moves."""

import io
import itertools
import re

import pytest
from rich.console import Console

from cloud.training import progress
from cloud.training.progress import PlainLines, StageClock, duration, shown_progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_remaining_time_follows_the_rate_of_the_stage_and_counts_down() -> None:
    clock = Clock()
    stage = StageClock(clock)
    stage.update("fitting the analyzers", 0.0)
    assert stage.remaining() == ""
    clock.now_s += 30
    stage.update("fitting the analyzers", 0.25)
    assert stage.remaining() == "about 1 min 30 s left"
    clock.now_s += 50
    assert stage.remaining() == "about 40 s left"
    clock.now_s += 60
    assert stage.remaining() == "nearly done"
    stage.update("fitting the analyzers", 1.0)
    assert stage.remaining() == ""


def test_a_stage_that_begins_in_the_middle_counts_its_own_part() -> None:
    clock = Clock()
    stage = StageClock(clock)
    stage.update("second half", 0.5)
    clock.now_s += 10
    stage.update("second half", 0.75)
    assert stage.remaining() == "about 10 s left"


def test_plain_lines_name_each_stage_and_go_on_while_it_reports_nothing() -> None:
    clock, lines = Clock(), list[str]()
    plain = PlainLines(lines.append, clock)
    plain.update("reading", 0.0)
    clock.now_s += 1
    plain.update("fitting the analyzers", 0.0)
    for second in range(100):
        clock.now_s += 1
        if second == 9:
            plain.update("fitting the analyzers", 0.1)
        plain.tick()
    assert lines[0] == "   0.0 s  reading"
    assert lines[1] == "   1.0 s  fitting the analyzers"
    assert lines[2] == "   6.0 s  fitting the analyzers  5 s so far"
    assert lines[3] == "  11.0 s  fitting the analyzers  10%, about 1 min 30 s left"
    assert 10 < len(lines) < 22
    gaps = [float(after.split()[0]) - float(before.split()[0]) for before, after in itertools.pairwise(lines[2:])]
    assert max(gaps) <= 12


def test_hours_of_one_stage_fill_no_page() -> None:
    clock, lines = Clock(), list[str]()
    plain = PlainLines(lines.append, clock)
    plain.update("scoring", 0.0)
    for _ in range(2 * 3600):
        clock.now_s += 1
        plain.tick()
    assert len(lines) < 80


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_silent_stage_is_shown_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.02)
    text = io.StringIO()
    with shown_progress(Console(file=text, width=20)) as update:
        update("quantising and comparing", 0.5)
        while text.getvalue().count("\n") < 3:
            pass
    assert re.fullmatch(r"( +\d+\.\d s  quantising and comparing(  \d s so far)?\n){3,}", text.getvalue())


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    text = io.StringIO()
    with shown_progress(Console(file=text, force_terminal=True, width=100)) as update:
        update("reading", 0.5)
        update("encoding", 0.2)
    assert "encoding" in text.getvalue()
