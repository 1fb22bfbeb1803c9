"""Comparisons as lines of text for a terminal, and their progress."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cloud.comparison.figures import changed, figures_of
from cloud.comparison.words import (
    answer_words,
    asked_words,
    auroc_words,
    latency_words,
    progress_words,
    share_words,
)
from cloud.store.comparison_samples import ComparedSample
from cloud.store.comparisons import Comparison, ComparisonStatus
from cloud.words import moment_words

SHOWN_CHANGED = 10
LINE_EVERY_S = 5.0


@contextmanager
def shown_progress() -> Iterator[Callable[[Comparison], None]]:
    """Yield a function that shows how far a comparison is: a bar on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console).show
        return
    with Progress(TextColumn("comparing"), BarColumn(), TextColumn("{task.description}"), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(comparison: Comparison) -> None:
            share = comparison.judged / comparison.samples if comparison.samples else 0.0
            bar.update(task, completed=share, description=progress_words(comparison))

        yield show


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self._console, self._last, self._due_s = console, "", 0.0

    def show(self, comparison: Comparison) -> None:
        """Print the progress if it differs from the last line, and that is LINE_EVERY_S seconds old."""
        text, now_s = progress_words(comparison), time.monotonic()
        if text != self._last and now_s >= self._due_s:
            self._last, self._due_s = text, now_s + LINE_EVERY_S
            self._console.print(f"comparing: {text}", markup=False, highlight=False, soft_wrap=True)


def list_lines(found: Sequence[Comparison]) -> list[str]:
    """Return a line for each comparison."""
    if not found:
        return ["No comparison yet. Start one: vedette cloud compare NAME BUNDLE_ID"]
    return [_headline(comparison) for comparison in found]


def result_lines(comparison: Comparison, judged: Sequence[ComparedSample]) -> list[str]:
    """Return a comparison with the table of its figures and the samples whose decision changed most."""
    lines = [_headline(comparison), f"{asked_words(comparison.asked)}; started by {comparison.actor}"]
    if comparison.reason:
        lines.append(comparison.reason)
    if not judged:
        return lines
    figures = figures_of(judged, comparison.first_bundle_id, comparison.second_bundle_id)
    sides = (figures.first, figures.second)
    rows = [
        ("", *(side.bundle_id for side in sides)),
        ("judged anomalous", *(f"{side.anomalous} of {figures.judged}" for side in sides)),
        ("could not be judged", *(str(side.undecided) for side in sides)),
        ("AUROC on labelled", *(auroc_words(side) for side in sides)),
        ("found of real ones", *(share_words(side.found) for side in sides)),
        ("false alarms", *(share_words(side.false_alarms) for side in sides)),
        ("latency, half within", *(latency_words(side) for side in sides)),
    ]
    lines += ["", *_table(rows), "", f"They agree on {share_words(figures.agreement)}."]
    total = figures.only_first + figures.only_second
    lines.append(f"{figures.only_first} anomalous with the first alone, {figures.only_second} with the second alone.")
    if total > SHOWN_CHANGED:
        lines.append(f"The {SHOWN_CHANGED} that differ most:")
    lines += _table([_changed(item) for item in changed(judged, SHOWN_CHANGED)])
    if comparison.status is ComparisonStatus.COMPLETED and len(judged) < comparison.asked.size:
        lines.append(f"Note: only {len(judged)} stored samples fit; {comparison.asked.size} were asked for.")
    return [*lines, *(f"Note: {problem}" for problem in figures.problems)]


def _headline(comparison: Comparison) -> str:
    progress = progress_words(comparison)
    return (
        f"{comparison.number}  {comparison.first_bundle_id} and {comparison.second_bundle_id}  {comparison.status}"
        f"{f', {progress}' if progress else ''}  {moment_words(comparison.created_at_s)}"
    )


def _changed(item: ComparedSample) -> tuple[str, ...]:
    answers = [f"{answer.decision} {answer_words(answer.p_value)}" for answer in (item.first, item.second)]
    label = f"label {item.label}" if item.label is not None else ""
    return f"  {item.sample_id or 'expired'}", item.device_id or "", answers[0], f"-> {answers[1]}", label


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines whose columns begin at the same places."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
