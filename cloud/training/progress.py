"""Progress of a long run with the remaining time of each stage: a bar on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

StageProgress: TypeAlias = Callable[[str, float], None]

LINE_INTERVAL_S, LINE_INTERVAL_SHARE = 5.0, 0.1  # between the plain lines of a stage: seconds, and share of its time
MIN_ELAPSED_S, MIN_SHARE = 2.0, 0.01  # of a stage before its remaining time is estimated
TICK_S = 1.0


class StageClock:
    """Elapsed and remaining time of the current stage, from the share done. `clock`: seconds, never backwards."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._run_started_s = self._stage_started_s = self._reported_s = clock()
        self.stage, self.share, self._first_share = "", 0.0, 0.0

    def update(self, stage: str, share: float) -> bool:
        """Set the share done, from 0 to 1; return whether a new stage has begun."""
        is_new, now_s = stage != self.stage, self._clock()
        if is_new:
            self.stage, self._stage_started_s, self._first_share = stage, now_s, share
        if is_new or share != self.share:
            self.share, self._reported_s = share, now_s
        return is_new

    @property
    def run_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._run_started_s

    @property
    def stage_s(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self._stage_started_s

    def progress(self) -> str:
        """Return the share done and the remaining time in words; the elapsed time while the share is unknown."""
        if self.share == self._first_share:
            return f"{duration(self.stage_s)} so far"
        left = self.remaining()
        return f"{self.share:.0%}" + (f", {left}" if left else "")

    def remaining(self) -> str:
        """Return the remaining time of the stage in words, such as "about 40 s left"; empty while it is unknown."""
        left_s = self.remaining_s()
        if left_s is None:
            return ""
        return f"about {duration(left_s)} left" if left_s >= 1.0 else "nearly done"

    def remaining_s(self) -> float | None:
        """Return the remaining seconds of the stage; None while they are unknown.

        The estimate assumes the mean rate of this stage, and counts down between two reports.
        """
        share, elapsed_s = self.share, self._reported_s - self._stage_started_s
        done = share - self._first_share
        if done < MIN_SHARE or elapsed_s < MIN_ELAPSED_S or share >= 1.0:
            return None
        return elapsed_s * (1.0 - share) / done - (self._clock() - self._reported_s)


def duration(seconds: float) -> str:
    """Return a duration for people: "8 s", "3 min 20 s" or "2 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class PlainLines:
    """One line when a stage begins, and more while it runs: every five seconds, and more rarely in a long stage."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = StageClock(clock)
        self._line_at_s = 0.0  # seconds of the stage at which its next line is due
        self._lock = threading.Lock()

    def update(self, stage: str, share: float) -> None:
        """Set the stage and the share of it that is done."""
        with self._lock:
            if self._clock.update(stage, share):
                self._line_at_s = LINE_INTERVAL_S
                self._line("")
        self.tick()

    def tick(self) -> None:
        """Write a line if one is due, also while the stage reports nothing."""
        with self._lock:
            if self._clock.stage and self._clock.stage_s >= self._line_at_s:
                stage_s = self._clock.stage_s
                self._line_at_s = stage_s + max(LINE_INTERVAL_S, LINE_INTERVAL_SHARE * stage_s)
                self._line(f"  {self._clock.progress()}")

    def _line(self, suffix: str) -> None:
        self._write(f"{self._clock.run_s:6.1f} s  {self._clock.stage}{suffix}")


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[StageProgress]:
    """Yield a function of a stage's name and the share done, which shows both on `console`, else on standard error."""
    console = console if console is not None else Console(stderr=True)
    with _bar(console) if console.is_terminal else _plain_lines(console) as update:
        yield update


@contextmanager
def _bar(console: Console) -> Iterator[StageProgress]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    left = TextColumn("{task.fields[left]}")
    clock = StageClock()
    with ProgressBar(*columns, TimeElapsedColumn(), left, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, left="")

        def update(stage: str, share: float) -> None:
            if clock.update(stage, share):
                bar.reset(task, description=stage, total=1.0, left="")
            bar.update(task, completed=share)

        with _every_tick(lambda: bar.update(task, left=clock.remaining())):
            yield update


@contextmanager
def _plain_lines(console: Console) -> Iterator[StageProgress]:
    lines = PlainLines(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    with _every_tick(lines.tick):
        yield lines.update


@contextmanager
def _every_tick(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` every TICK_S seconds in a thread of its own, until the block ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(TICK_S):
            act()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
