"""Tables for training and evaluation: which column is the label, which the time, and which are inputs.

Cells, headers and times are read by `shared.tables`, as on devices. The rules for the roles of columns are described in
docs/TABLES.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.training.settings import DataSettings
from cloud.training.table_file import TableColumns, read_columns
from cloud.training.table_roles import RowTimes, TimeColumns, check_names, find_inputs, find_label
from shared.errors import DataError
from shared.tables.cells import is_missing
from shared.tables.rows import category_channel, one_hot

NORMAL_WORDS = frozenset({"0", "0.0", "false", "no", "normal", "good", "ok", "benign", "inlier"})
MAX_CATEGORIES = 32


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """Inputs and labels of a table.

    `rows`: (n, columns) float64; `labels`: (n,) bool, true for anomalies, or None; `faults`: (n,) bool, true for rows
    that cannot be read; `categories`: values of each column that became one channel per value; `decimal`: the decimal
    mark if it is a comma; `times`: times of the rows, None if they have none or need none; `row_numbers`: (n,) number
    of each row in the file, from 1.
    """

    columns: tuple[str, ...]
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_] | None
    faults: NDArray[np.bool_]
    row_numbers: NDArray[np.int64]
    notes: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    decimal: str = ""
    times: RowTimes | None = None


def read_table(path: Path, settings: DataSettings, *, needs_time: bool = False) -> TrainingTable:
    """Read a CSV or Parquet file.

    Args:
        path: the file.
        settings: roles of columns, and the format of the table. With `columns` and `category_values`, the columns are
            channels of a bundle, such as "pump=on".
        needs_time: whether rows must be in the order of the time column, which is left out of the inputs.

    Raises:
        DataError: names file, column and row.
    """
    source = read_columns(path, settings)
    if settings.category_values and settings.columns:
        return _read_for_bundle(source, settings, needs_time=needs_time)
    named = list(settings.columns)
    if named and settings.mode_column and settings.mode_column not in named:
        named.append(settings.mode_column)
    check_names(source, named)
    label = find_label(source, settings, named)
    times = TimeColumns.find(source, settings, [*named, label])
    notes = [*source.notes, *([f"column {label!r} is taken as the label"] if label else []), *times.notes]
    checked = times.check_order(source, settings, notes) if needs_time else None
    wanted, left_out = (named, []) if named else find_inputs(source, {label, *times.names}, settings)
    columns, values, found, category_notes = _values(source, wanted, settings)
    faults = _faulty_rows(source, {*wanted, label}, settings)
    if checked is not None:
        faults |= checked.faulty
    labels = _labels(source, label) if label else None
    decimal = "," if source.decimal == "," else ""
    notes += [*left_out, *category_notes]
    return TrainingTable(
        tuple(columns), values, labels, faults, source.lines + 1, tuple(notes), found, decimal, checked
    )


def _read_for_bundle(source: TableColumns, settings: DataSettings, *, needs_time: bool) -> TrainingTable:
    """Read the channels of a bundle that has category columns."""
    categories = settings.category_values
    channels = {
        category_channel(column, value): (column, value) for column, values in categories.items() for value in values
    }
    plain = [name for name in settings.columns if name not in channels]
    used = [*plain, *categories]
    check_names(source, used)
    label = find_label(source, settings, used)
    notes = list(source.notes)
    times = None
    if needs_time:
        times = TimeColumns.find(source, settings, [*used, label]).check_order(source, settings, notes)
    for column in categories:
        source.texts.setdefault(column, [f"{value:g}" for value in source.numbers.get(column, ())])
    columns = {name: one_hot(source.texts[column], value) for name, (column, value) in channels.items()}
    columns |= {name: _numbers(source, name) for name in plain}
    rows = np.stack([columns[name] for name in settings.columns], axis=1)
    faults = _faulty_rows(source, {*used, label}, settings)
    if times is not None:
        faults |= times.faulty
    labels = _labels(source, label) if label else None
    return TrainingTable(settings.columns, rows, labels, faults, source.lines + 1, tuple(notes))


def _values(
    source: TableColumns, wanted: Sequence[str], settings: DataSettings
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


def _category_values(source: TableColumns, name: str) -> tuple[str, ...]:
    values = tuple(sorted({text for text in source.texts[name] if not is_missing(text)}))
    if len(values) > MAX_CATEGORIES:
        raise DataError(
            f"{source.path}: column {name!r} has {len(values)} different texts, and one-hot takes at most "
            f"{MAX_CATEGORIES}. Name the columns to use with data.columns."
        )
    return values


def _numbers(source: TableColumns, name: str) -> NDArray[np.float64]:
    """Return the column as float64; a missing cell is NaN. Raises DataError for a column of text."""
    if name in source.numbers:
        return source.numbers[name]
    texts = source.texts[name]
    row = next((index for index, text in enumerate(texts) if not is_missing(text)), None)
    if row is None:
        return np.full(len(texts), np.nan)
    raise DataError(
        f"{source.path}: row {source.lines[row] + 1}, column {name!r}: {texts[row][:40]!r} is not a number. Name the "
        "columns to use with data.columns in --config, its role with --label-column or --time-column (the format of "
        "its times is table.dates), or let texts be one channel per value with --one-hot."
    )


def _faulty_rows(source: TableColumns, used: set[str], settings: DataSettings) -> NDArray[np.bool_]:
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


def _labels(source: TableColumns, name: str) -> NDArray[np.bool_]:
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
