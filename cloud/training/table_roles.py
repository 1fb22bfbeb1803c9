"""Roles of the columns of a table: label, time, inputs. The rules are described in docs/TABLES.md."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cloud.training.settings import DataSettings
from cloud.training.table_file import TableColumns
from shared.errors import DataError
from shared.tables.cells import is_missing
from shared.tables.order import TIME_COLUMNS, order_fault
from shared.tables.reader import CHUNK_ROWS
from shared.tables.settings import TableSettings
from shared.tables.times import (
    epoch_units_per_s,
    first_step_back,
    is_epoch,
    is_time_of_day,
    parse_column,
    usual_step,
)

LABEL_COLUMNS = ("label", "labels", "anomaly", "is_anomaly", "anomalous", "outlier", "y", "target", "attack")
AMBIGUOUS_COLUMNS = frozenset({"y", "target"})  # also a sensor's second axis, or a setpoint
MIN_ROW_NUMBERS = 3  # rows from which a column that rises by one counts as row numbers
MIN_RISING_ROWS = 30  # rows from which a column that rises or falls in every row counts as a counter
_PAIR_MARK = "+"  # between the names of a date and a time column


def check_names(source: TableColumns, named: Sequence[str]) -> None:
    """Raise DataError for a named column that is absent, or for a used name that appears twice."""
    for name in named:
        if name not in source.names:
            raise DataError(f"{source.path}: has no column {name!r}{_nearest(name, source.names)} Set data.columns.")
    used = named or source.names
    twice = sorted({name for name in used if source.names.count(name) > 1})
    if twice:
        raise DataError(f"{source.path}: column {twice[0]!r} appears more than once. Rename one of them.")


def find_label(source: TableColumns, settings: DataSettings, inputs: Sequence[str]) -> str:
    """Return the label column, or ""; an input is never one, unless it is asked for."""
    plausible = [name for name in source.names if name not in inputs and _may_be_labels(source, name)]
    return _pick(source, plausible, settings.label_column, LABEL_COLUMNS, "--label-column")


def find_inputs(source: TableColumns, roles: set[str], settings: DataSettings) -> tuple[list[str], list[str]]:
    """Return the columns that are inputs if none are named, and notes on those that are left out."""
    free = [name for name in source.names if name not in roles]
    found = {name: _rise_of(source.numbers[name]) for name in free if name in source.numbers}
    found.pop(settings.mode_column, None)
    rising = {name: what for name, what in found.items() if what}
    if settings.rising == "keep":
        return free, [f"column {name!r} {what}, and is kept" for name, what in rising.items()]
    if len(rising) == len(free):
        return free, [f"column {name!r} {what}; it is kept, as no other is an input" for name, what in rising.items()]
    wanted = [name for name in free if name not in rising]
    return wanted, [
        f"column {name!r} {what}, and is left out; data.columns or data.rising = 'keep' in --config keeps it"
        for name, what in rising.items()
    ]


def rising_notes(columns: Sequence[str], rows: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a note for each rising column of `rows` (n, columns); such columns stay inputs."""
    rises = ((name, _rise_of(rows[:, index])) for index, name in enumerate(columns))
    return tuple(
        f"column {name!r} {what}: no later row will be like these; remove it from the file"
        for name, what in rises
        if what
    )


def _rise_of(numbers: NDArray[np.float64]) -> str:
    """Return how a column rises or falls without end; "" if it does not. Missing values do not count."""
    if len(numbers) >= MIN_ROW_NUMBERS and float(numbers[0]).is_integer() and bool((np.diff(numbers) == 1).all()):
        return "rises by one in each row, as row numbers do"
    present = numbers[~np.isnan(numbers)]
    if is_epoch(present):
        return "rises like a clock"
    steps = np.diff(present)
    if len(present) < MIN_RISING_ROWS:
        return ""
    if (steps > 0).all():
        return "rises in every row, as a counter does"
    return "falls in every row" if (steps < 0).all() else ""


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Checked times of the rows of a table.

    `column`: name of the time column. `faulty`: (n,) true for rows whose time cannot be read. `step_s`: median step in
    seconds; 0 if it is unknown, as for numbers without a unit.
    """

    column: str
    faulty: NDArray[np.bool_]
    step_s: float


@dataclass(frozen=True, slots=True)
class TimeColumns:
    """The column, or the two columns (date, time of day), that hold the time. `names` is empty if there is none."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def find(cls, source: TableColumns, settings: DataSettings, taken: Sequence[str]) -> Self:
        """Find the time among the columns that are not `taken`. Raises DataError if a configured column is absent."""
        free = [name for name in source.names if name not in taken]
        if pair := _pair(source, settings, free):
            return cls(pair, (f"columns {pair[0]!r} and {pair[1]!r} are taken as the time",))
        name, how = _pick(source, free, settings.time_column, TIME_COLUMNS, "--time-column"), ""
        if not name:
            name = next((one for one in free if _holds_times(source.texts.get(one, ()), settings.table)), "")
            how = ", as its cells are times"
        if not name and settings.rising == "leave_out":
            name = next((one for one in free if one in source.numbers and is_epoch(source.numbers[one])), "")
            how = ", as it rises like a clock; data.rising = 'keep' in --config makes it an input"
        return cls((name,), (f"column {name!r} is taken as the time{how}",)) if name else cls(())

    def check_order(self, source: TableColumns, settings: DataSettings, notes: list[str]) -> RowTimes | None:
        """Return the times after a check that rows are in their order, and add notes; None without a time column.

        Raises DataError for a time that cannot be read, unless such rows are dropped, or for a row that is earlier
        than the one before it.
        """
        if not self.names:
            return None
        name = " ".join(self.names)
        times, faulty = self._read(source, settings, notes)
        rows, times = source.lines[~faulty] + 1, times[~faulty]
        position, is_clock_change = first_step_back(times)
        if position >= 0:
            raise order_fault(source.path, int(rows[position]), name)
        if is_clock_change:
            notes.append(f"{name!r} goes back one hour: the end of daylight saving; rows keep the order of the file")
        repeated = int(np.count_nonzero(np.diff(times) == 0))
        if repeated:
            notes.append(f"{repeated} rows have the time of the row before them; all are kept")
        units_per_s = epoch_units_per_s(times) if self._are_numbers(source, settings) else 1.0
        return RowTimes(name, faulty, usual_step(times) / units_per_s if units_per_s else 0.0)

    def _are_numbers(self, source: TableColumns, settings: DataSettings) -> bool:
        """Return whether the times are numbers, and no texts to parse."""
        return len(self.names) == 1 and self.names[0] in source.numbers and "%" not in settings.table.dates

    def _read(
        self, source: TableColumns, settings: DataSettings, notes: list[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the times (n,) in seconds and (n,) true for those that cannot be read, where such rows are dropped."""
        name, table = " ".join(self.names), settings.table
        if self._are_numbers(source, settings):
            times = source.numbers[name]
            faulty, reason = np.isnan(times), "is empty"
        else:
            texts = [" ".join(cells) for cells in zip(*(_cells(source, one) for one in self.names), strict=True)]
            times, faulty, reason = _parse(texts, table, notes)
        if faulty.any() and (settings.bad_rows == "refuse" or 2 * np.count_nonzero(faulty) > len(faulty)):
            row = source.lines[int(np.argmax(faulty))] + 1
            raise DataError(
                f"{source.path}: row {row}, time column {name!r} {reason}. Repair it, set table.dates under [data] of "
                "--config to the format of the times (such as '%d %b %y %H.%M'), or name the time with --time-column "
                "(DATE+TIME for two columns)."
            )
        return times, faulty


def _parse(
    texts: list[str], table: TableSettings, notes: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], str]:
    """Return times (n,), (n,) true for unreadable texts, and the fault of the first."""
    missing = np.array([is_missing(text.strip()) for text in texts], dtype=np.bool_)
    present = [text for text, is_absent in zip(texts, missing, strict=True) if not is_absent]
    try:
        found, note = parse_column(present, table.dates)
        unreadable, reason = missing, ""
    except ValueError:
        readable, reason = _readable(present, table)
        unreadable = missing.copy()
        unreadable[~missing] = ~readable
        try:
            good = [text for text, is_bad in zip(texts, unreadable, strict=True) if not is_bad]
            found, note = parse_column(good, table.dates)
        except ValueError as error:  # each text is a time, but not all of them have one form
            unreadable, found, note = np.ones(len(texts), dtype=np.bool_), np.empty(0), ""
            reason = f"cannot be read: {str(error).rstrip('.')}"
    notes += [note] if note else []
    times = np.full(len(texts), np.nan)
    times[~unreadable] = found
    return times, unreadable, "is empty" if missing[int(np.argmax(unreadable))] else reason


def _readable(texts: Sequence[str], table: TableSettings) -> tuple[NDArray[np.bool_], str]:
    """Return (n,) whether each text alone is a time, and the fault of the first other text."""
    readable, reason = np.ones(len(texts), dtype=np.bool_), ""
    for index, text in enumerate(texts):
        try:
            parse_column([text], table.dates)
        except ValueError as error:
            readable[index] = False
            reason = reason or f"cannot be read: {str(error).rstrip('.')}"
    return readable, reason


def _pair(source: TableColumns, settings: DataSettings, free: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of date and time of day, as configured or by their cells; None if there are not both."""
    wanted = settings.time_column
    if wanted:
        first, mark, second = wanted.partition(_PAIR_MARK)
        pair = (first.strip(), second.strip())
        return pair if mark and wanted not in source.names and set(pair) <= set(source.names) else None
    if {"timestamp", "datetime"} & {name.lower() for name in free}:
        return None
    clock = _named_first("time", free, lambda name: _all(source.texts.get(name, ()), is_time_of_day))
    day = _named_first("date", free, lambda name: _are_dates(source, name, settings.table))
    return (day, clock) if clock and day and clock != day else None


def _named_first(usual: str, names: Sequence[str], fits: Callable[[str], bool]) -> str:
    """Return the first name that fits, one with the usual name before all others; "" if none does."""
    ordered = sorted(names, key=lambda name: name.lower() != usual)
    return next((name for name in ordered if fits(name)), "")


def _are_dates(source: TableColumns, name: str, table: TableSettings) -> bool:
    """Return whether all cells are dates without a time of day; numbers such as 20251024 in a column `date` are."""
    if name in source.numbers and name.lower() != "date":
        return False
    texts = _cells(source, name)[:CHUNK_ROWS]
    return _all(texts, lambda text: ":" not in text) and _holds_times(texts, table)


def _cells(source: TableColumns, name: str) -> list[str]:
    """Return a column as texts, numbers without a fraction."""
    if name in source.texts:
        return source.texts[name]
    return ["" if np.isnan(number) else f"{number:.0f}" for number in source.numbers[name]]


def _all(texts: Sequence[str], fits: Callable[[str], bool]) -> bool:
    present = [text for text in texts[:CHUNK_ROWS] if not is_missing(text)]
    return bool(present) and all(map(fits, present))


def _holds_times(texts: Sequence[str], table: TableSettings) -> bool:
    present = [text for text in texts[:CHUNK_ROWS] if not is_missing(text)]
    try:
        return bool(present) and len(parse_column(present, table.dates)[0]) > 0
    except ValueError:
        return False


def _may_be_labels(source: TableColumns, name: str) -> bool:
    """Return whether a column with a usual name holds labels; if the name has other uses, the values decide."""
    if name.lower() not in AMBIGUOUS_COLUMNS or name not in source.numbers:
        return True
    numbers = source.numbers[name]
    numbers = numbers[~np.isnan(numbers)]
    return bool(((numbers >= 0) & (numbers == np.floor(numbers))).all())


def _pick(source: TableColumns, names: Sequence[str], wanted: str, usual: Sequence[str], option: str) -> str:
    """Return the column that is asked for, else one with a usual name, else ""."""
    if wanted:
        if wanted not in source.names:
            raise DataError(f"{source.path}: has no column {wanted!r}{_nearest(wanted, source.names)} Set {option}.")
        return wanted
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), "")


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names[:12])}."
