"""Tables for training and evaluation: which column is the label, which the time, and which are inputs.

Cells, headers and times are read by `shared.tables`, as on devices. The rules for the roles of columns are described in
docs/TABLES.md.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.training.settings import DataSettings
from shared.errors import DataError
from shared.tables.cells import NumberReader, is_missing
from shared.tables.reader import (
    CHUNK_ROWS,
    TEXT_SUFFIXES,
    CsvFile,
    floats_of,
    is_numeric,
    next_batch,
    open_parquet,
    texts_of,
)
from shared.tables.rows import category_channel, one_hot
from shared.tables.times import first_step_back, is_epoch, parse_column

LABEL_COLUMNS = ("label", "labels", "anomaly", "is_anomaly", "anomalous", "outlier", "y", "target", "attack")
AMBIGUOUS_COLUMNS = frozenset({"y", "target"})  # also a sensor's second axis, or a setpoint
TIME_COLUMNS = ("timestamp", "time", "datetime", "date", "ts")
NORMAL_WORDS = frozenset({"0", "0.0", "false", "no", "normal", "good", "ok", "benign", "inlier"})
MAX_CATEGORIES = 32
MIN_ROW_NUMBERS = 3  # rows from which a column that rises by one counts as row numbers
MIN_RISING_ROWS = 30  # rows from which a column that rises or falls in every row counts as a counter
_PARQUET_INDEX = "__index_level_"


@dataclass(frozen=True, slots=True)
class Table:
    """Inputs and labels of a table.

    `rows`: (n, columns) float64; `labels`: (n,) bool, true for anomalies, or None; `faults`: (n,) bool, true for rows
    that cannot be read; `categories`: values of each column that became one channel per value; `decimal`: the decimal
    mark if it is a comma.
    """

    columns: tuple[str, ...]
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_] | None
    faults: NDArray[np.bool_]
    notes: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    decimal: str = ""


@dataclass(slots=True)
class _Source:
    """All columns of a file. `faults`: row, column ("" for the whole row) and reason."""

    path: Path
    names: list[str]
    numbers: dict[str, NDArray[np.float64]]
    texts: dict[str, list[str]]
    faults: list[tuple[int, str, str]]
    lines: NDArray[np.int64]
    notes: tuple[str, ...]
    decimal: str = ""

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.lines)


def read_table(path: Path, settings: DataSettings, *, needs_time: bool = False) -> Table:
    """Read a CSV or Parquet file.

    Args:
        path: the file.
        settings: roles of columns, and the format of the table. With `columns` and `category_values`, the columns are
            channels of a bundle, such as "pump=on".
        needs_time: whether rows must be in the order of the time column, which is left out of the inputs.

    Raises:
        DataError: names file, column and row.
    """
    source = _read_csv(path, settings) if path.name.lower().endswith(TEXT_SUFFIXES) else _read_parquet(path)
    if settings.category_values and settings.columns:
        return _read_for_bundle(source, settings)
    named = list(settings.columns)
    if named and settings.mode_column and settings.mode_column not in named:
        named.append(settings.mode_column)
    _check_names(source, named)
    notes = list(source.notes)
    label = _label_column(source, settings, named)
    times, time_notes = _time_columns(source, settings, [*named, label])
    if times and needs_time:
        time_notes += _check_order(source, times, settings)
    notes += [f"column {label!r} is taken as the label"] if label else []
    notes += time_notes
    if named:
        wanted = named
    else:
        wanted, left_out = _inputs(source, {label, *times}, settings)
        notes += left_out
    columns, values, found, category_notes = _values(source, wanted, settings)
    faults = _faulty_rows(source, {*wanted, label}, settings)
    labels = _labels(source, label) if label else None
    return Table(
        tuple(columns), values, labels, faults, (*notes, *category_notes), found, "," if source.decimal == "," else ""
    )


def _read_for_bundle(source: _Source, settings: DataSettings) -> Table:
    """Read the channels of a bundle that has category columns."""
    categories = settings.category_values
    channels = {
        category_channel(column, value): (column, value) for column, values in categories.items() for value in values
    }
    plain = [name for name in settings.columns if name not in channels]
    _check_names(source, [*plain, *categories])
    label = _label_column(source, settings, [*plain, *categories])
    for column in categories:
        source.texts.setdefault(column, [f"{value:g}" for value in source.numbers.get(column, ())])
    columns = {name: one_hot(source.texts[column], value) for name, (column, value) in channels.items()}
    columns |= {name: _numbers(source, name) for name in plain}
    rows = np.stack([columns[name] for name in settings.columns], axis=1)
    faults = _faulty_rows(source, {*plain, *categories, label}, settings)
    return Table(settings.columns, rows, _labels(source, label) if label else None, faults, source.notes)


def _read_csv(path: Path, settings: DataSettings) -> _Source:
    file = CsvFile(path, settings.table)
    if not file.parser.names:
        raise DataError(f"{path}: the file is empty.")
    file.fit()
    sample = file.parser.sample_columns(file.sample)
    names = [name for name in file.parser.names if name]
    unique = [name for name in dict.fromkeys(names) if names.count(name) == 1]
    numeric = [name for name in unique if _is_mostly_numbers(sample.get(name, []), file.parser.numbers)]
    texts = [name for name in unique if name not in numeric]
    file.parser.select(numeric, texts)
    values: list[NDArray[np.float64]] = [np.empty((0, len(numeric)))]
    cells: list[list[str]] = [[] for _ in texts]
    faults: list[tuple[int, str, str]] = []
    lines: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    count = 0
    for first, rows in file.portions():
        values.append(rows.values)
        lines.append(rows.positions + first)
        for column, portion in zip(cells, rows.texts, strict=True):
            column += portion
        faults += [(count + fault.row, fault.column, fault.reason) for fault in rows.faults]
        count += len(rows.positions)
    joined = np.concatenate(values)
    return _Source(
        path,
        names,
        {name: joined[:, index] for index, name in enumerate(numeric)},
        dict(zip(texts, cells, strict=True)),
        faults,
        np.concatenate(lines),
        file.parser.describe(file.encoding.name),
        file.parser.numbers.decimal,
    )


def _read_parquet(path: Path) -> _Source:
    with open_parquet(path) as file:
        fields = [(field.name, str(field.type)) for field in file.schema_arrow]
        names = [name for name, _ in fields if not name.startswith(_PARQUET_INDEX)]
        numeric = [name for name, kind in fields if name in names and is_numeric(kind)]
        numbers: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in numeric}
        texts: dict[str, list[str]] = {name: [] for name in names if name not in numeric}
        count, batches = 0, iter(file.iter_batches(CHUNK_ROWS))
        while (batch := next_batch(path, batches)) is not None:
            for name in numeric:
                numbers[name].append(floats_of(batch.column(name)))
            for name, column in texts.items():
                column += texts_of(batch.column(name))
            count += batch.num_rows
    notes = ("the index column is left out",) if len(names) < len(fields) else ()
    joined = {name: np.concatenate(portions) for name, portions in numbers.items()}
    return _Source(path, names, joined, texts, [], np.arange(count), notes)


def _is_mostly_numbers(cells: Sequence[str], numbers: NumberReader) -> bool:
    present = [cell for cell in cells if not is_missing(cell)]
    count = 0
    for cell in present:
        try:
            numbers.read(cell)
        except ValueError:
            continue
        count += 1
    return 2 * count >= len(present)


def _check_names(source: _Source, named: Sequence[str]) -> None:
    """Raise DataError for a named column that is absent, or for a used name that appears twice."""
    for name in named:
        if name not in source.names:
            raise DataError(f"{source.path}: has no column {name!r}{_nearest(name, source.names)} Set data.columns.")
    used = named or source.names
    twice = sorted({name for name in used if source.names.count(name) > 1})
    if twice:
        raise DataError(f"{source.path}: column {twice[0]!r} appears more than once. Rename one of them.")


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names[:12])}."


def _pick(source: _Source, names: Sequence[str], wanted: str, usual: Sequence[str], option: str) -> str:
    """Return the column that is asked for, else one with a usual name, else ""."""
    if wanted:
        if wanted not in source.names:
            raise DataError(f"{source.path}: has no column {wanted!r}{_nearest(wanted, source.names)} Set {option}.")
        return wanted
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), "")


def _label_column(source: _Source, settings: DataSettings, inputs: Sequence[str]) -> str:
    """Return the label column; an input is never one, unless it is asked for."""
    plausible = [name for name in source.names if name not in inputs and _may_be_labels(source, name)]
    return _pick(source, plausible, settings.label_column, LABEL_COLUMNS, "--label-column")


def _may_be_labels(source: _Source, name: str) -> bool:
    """Return whether a column with a usual name holds labels; if the name has other uses, the values decide."""
    if name.lower() not in AMBIGUOUS_COLUMNS or name not in source.numbers:
        return True
    numbers = source.numbers[name]
    numbers = numbers[~np.isnan(numbers)]
    return bool(((numbers >= 0) & (numbers == np.floor(numbers))).all())


def _time_columns(source: _Source, settings: DataSettings, taken: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the column or the two columns (date, time of day) that hold the time, and notes about the choice."""
    free = [name for name in source.names if name not in taken]
    lower = {name.lower(): name for name in free}
    if not settings.time_column and {"date", "time"} <= lower.keys() and not {"timestamp", "datetime"} & lower.keys():
        pair = (lower["date"], lower["time"])
        if all(name in source.texts for name in pair) and _is_time_of_day(source.texts[pair[1]]):
            return pair, [f"columns {pair[0]!r} and {pair[1]!r} are taken as the time"]
    name = _pick(source, free, settings.time_column, TIME_COLUMNS, "--time-column")
    how = ""
    if not name:
        name = next((name for name in free if name in source.texts and _holds_times(source.texts[name], settings)), "")
        how = ", as its cells are times"
    if not name:
        name = next((name for name in free if name in source.numbers and is_epoch(source.numbers[name])), "")
        how = ", as it rises like a clock; name the inputs with data.columns to use it as one"
    return ((name,), [f"column {name!r} is taken as the time{how}"]) if name else ((), [])


def _is_time_of_day(texts: Sequence[str]) -> bool:
    return bool(texts) and all(":" in text and "-" not in text[:4] and len(text) <= 20 for text in texts[:CHUNK_ROWS])


def _holds_times(texts: Sequence[str], settings: DataSettings) -> bool:
    present = [text for text in texts[:CHUNK_ROWS] if not is_missing(text)]
    try:
        return bool(present) and len(parse_column(present, settings.table.dates)[0]) > 0
    except ValueError:
        return False


def _check_order(source: _Source, columns: tuple[str, ...], settings: DataSettings) -> list[str]:
    """Return notes on the times of a series. Raises DataError if rows are not in the order of time."""
    name = columns[-1] if len(columns) == 1 else " ".join(columns)
    notes: list[str] = []
    if columns[0] in source.numbers and "%" not in settings.table.dates:
        times = source.numbers[columns[0]]
    else:
        texts = [" ".join(cells) for cells in zip(*(_texts(source, column) for column in columns), strict=True)]
        try:
            times, note = parse_column(texts, settings.table.dates)
        except ValueError as error:
            raise DataError(f"{source.path}: time column {name!r} cannot be read: {error}") from None
        notes += [note] if note else []
    if np.isnan(times).any():
        row = source.lines[int(np.argmax(np.isnan(times)))] + 1
        raise DataError(f"{source.path}: row {row}, time column {name!r} is empty.")
    position, is_clock_change = first_step_back(times)
    if position >= 0:
        raise DataError(
            f"{source.path}: row {source.lines[position] + 1} is earlier than the row before it in {name!r}; sort the "
            "file by it."
        )
    if is_clock_change:
        notes.append(f"{name!r} goes back one hour: the end of daylight saving; rows keep the order of the file")
    repeated = int(np.count_nonzero(np.diff(times) == 0))
    if repeated:
        notes.append(f"{repeated} rows have the time of the row before them; all are kept")
    return notes


def _texts(source: _Source, name: str) -> list[str]:
    """Return the cells of a time column as texts, also those that were read as whole numbers."""
    if name in source.texts:
        return source.texts[name]
    return [f"{number:.0f}" for number in source.numbers[name]]


def _inputs(source: _Source, roles: set[str], settings: DataSettings) -> tuple[list[str], list[str]]:
    """Return the columns that are inputs if none are named, and notes on those that are left out.

    A column that rises without end has no normal range: every later value would be anomalous.
    """
    free = [name for name in source.names if name not in roles]
    if settings.rising == "keep":
        return free, []
    notes, wanted = [], []
    for name in free:
        how = "" if name == settings.mode_column else _rise(source.numbers.get(name))
        if how:
            notes.append(f"column {name!r} {how} and is left out; name it in data.columns to keep it")
        else:
            wanted.append(name)
    return (wanted, notes) if wanted else (free, [])


def _rise(numbers: NDArray[np.float64] | None) -> str:
    """Return how a column rises or falls without end; empty if it does not."""
    if numbers is None:
        return ""
    if _are_row_numbers(numbers):
        return "rises by one in each row, as row numbers do,"
    if is_epoch(numbers):
        return "rises like a clock"
    steps = np.diff(numbers)
    if len(numbers) < MIN_RISING_ROWS or not np.isfinite(steps).all():
        return ""
    if (steps > 0).all():
        return "rises in every row, as a counter does,"
    return "falls in every row" if (steps < 0).all() else ""


def _are_row_numbers(numbers: NDArray[np.float64]) -> bool:
    return len(numbers) >= MIN_ROW_NUMBERS and float(numbers[0]).is_integer() and bool((np.diff(numbers) == 1).all())


def _values(
    source: _Source, wanted: Sequence[str], settings: DataSettings
) -> tuple[list[str], NDArray[np.float64], dict[str, tuple[str, ...]], list[str]]:
    """Return channel names, (n, channels) values, the values of categories, and notes."""
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    categories: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        if name in source.texts and settings.categories == "one_hot" and name != settings.mode_column:
            categories[name] = settings.category_values.get(name) or _category_values(source, name)
            names += [category_channel(name, value) for value in categories[name]]
            columns += [one_hot(source.texts[name], value) for value in categories[name]]
        else:
            names.append(name)
            columns.append(_numbers(source, name))
    rows = np.stack(columns, axis=1) if columns else np.empty((source.count, 0))
    notes = [
        f"column {name!r} is one-hot: {', '.join(map(repr, found[:8]))}{' ...' if len(found) > 8 else ''}"
        for name, found in categories.items()
    ]
    return names, rows, categories, notes


def _category_values(source: _Source, name: str) -> tuple[str, ...]:
    values = tuple(sorted({text for text in source.texts[name] if not is_missing(text)}))
    if len(values) > MAX_CATEGORIES:
        raise DataError(
            f"{source.path}: column {name!r} has {len(values)} different texts, and one-hot takes at most "
            f"{MAX_CATEGORIES}. Name the columns to use with data.columns."
        )
    return values


def _numbers(source: _Source, name: str) -> NDArray[np.float64]:
    """Return the column as float64; a missing cell is NaN. Raises DataError for a column of text."""
    if name in source.numbers:
        return source.numbers[name]
    texts = source.texts[name]
    row = next((index for index, text in enumerate(texts) if not is_missing(text)), None)
    if row is None:
        return np.full(len(texts), np.nan)
    raise DataError(
        f"{source.path}: row {source.lines[row] + 1}, column {name!r}: {texts[row][:40]!r} is not a number. Name the "
        "columns to use with data.columns in --config, its role with --label-column or --time-column, or let texts be "
        "one channel per value with --one-hot."
    )


def _faulty_rows(source: _Source, used: set[str], settings: DataSettings) -> NDArray[np.bool_]:
    """Return (n,) true for rows that cannot be read. Raises DataError for the first if they are refused."""
    faulty = np.zeros(source.count, dtype=np.bool_)
    for row, column, reason in source.faults:
        if column and column not in used:
            continue
        if settings.bad_rows == "refuse":
            raise DataError(
                f"{source.path}: row {source.lines[row] + 1}{',' if column else ''} {reason} Repair the data, or leave "
                "such rows out with --drop-bad-rows."
            )
        faulty[row] = True
    return faulty


def _labels(source: _Source, name: str) -> NDArray[np.bool_]:
    """Return (n,) true where the label is not 0; words for normal count as 0."""
    if name in source.numbers:
        numbers = source.numbers[name]
        empty = np.isnan(numbers)
        labels = np.asarray(numbers != 0, dtype=np.bool_)
    else:
        texts = source.texts[name]
        empty = np.array([is_missing(text) for text in texts], dtype=np.bool_)
        labels = np.array([text.lower() not in NORMAL_WORDS for text in texts], dtype=np.bool_)
    if empty.any():
        row = source.lines[int(np.argmax(empty))] + 1
        raise DataError(f"{source.path}: row {row}, label column {name!r} is empty; 0 is normal, 1 anomalous.")
    return labels
