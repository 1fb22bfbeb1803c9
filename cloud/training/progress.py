"""Progress of a long run: a bar on a terminal, one line per stage elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

StageProgress: TypeAlias = Callable[[str, float], None]


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[StageProgress]:
    """Yield a function of a stage's name and the share done, which shows both on `console`, else on standard error."""
    console = console if console is not None else Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with ProgressBar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        stage = ""

        def update(name: str, share: float) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                bar.reset(task, description=name, total=1.0)
            bar.update(task, completed=share)

        yield update


def _plain_lines(console: Console) -> StageProgress:
    started_s = time.monotonic()
    stage = ""

    def update(name: str, share: float) -> None:
        nonlocal stage
        if name != stage:
            stage = name
            console.print(f"{time.monotonic() - started_s:6.1f} s  {name}", markup=False, highlight=False)

    return update
