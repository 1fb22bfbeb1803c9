"""Training data as it lies on disk: tables of rows or readings, and folders of images.

| modality | layout |
|---|---|
| tabular | `.npz` with `X` and optional `y`; `.csv` or `.parquet` with an optional label column |
| series | `.npz` with `train`, `test`, `label`; `.csv` or `.parquet` with a time column and an optional label column |
| image | `train/good`, `test/good`, `test/<defect>` or a flat folder of good images; see docs/IMAGES.md |
| video | `train/`, and `eval/` with a `.csv` of labels by frame beside a video; or a flat folder of normal videos |

Beside `train/good` there may be `validation/good`, as in MVTec AD 2: images to calibrate on. Without it they are drawn
from the training images, which is too kind to a camera that sees the same thing twice.

Every problem is one DataError with the fault, its place and a remedy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.training.samples.images import ImageData
from cloud.training.samples.videos import VideoData
from cloud.training.settings import DataSettings
from cloud.training.table_roles import rising_notes
from shared.errors import DataError
from shared.modality import Modality
from shared.preprocessing.modes import MAX_MODES
from shared.tables.reader import column_names


@dataclass(frozen=True, slots=True)
class TableData:
    """Rows or readings of a table.

    `rows`: (n, columns) float64 in file order; `usable`: (n,) bool, false for dropped rows; `labels`: (n,) bool, true
    for anomalies, or None; `test_rows`, `test_labels`: the same of a separate test set. `missing`: whether a usable row
    may hold NaN. `mode_column`: the one of `columns` with the operating mode, or "". `categories`: values of each text
    column that became one channel per value. `decimal`: "," if that is the decimal mark of the file. `time_column`,
    `step_s`: name of the column of times and their median step in seconds, "" and 0 if they are unknown.
    `row_numbers`: (n,) number of each row in a text file, from 1; None if they are 1 to n.
    """

    modality: Modality
    origin: str
    columns: tuple[str, ...]
    rows: NDArray[np.float64]
    usable: NDArray[np.bool_]
    labels: NDArray[np.bool_] | None = None
    test_rows: NDArray[np.float64] | None = None
    test_labels: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    missing: bool = False
    mode_column: str = ""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    decimal: str = ""
    time_column: str = ""
    step_s: float = 0.0
    row_numbers: NDArray[np.int64] | None = None

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers (m,) of the rows to judge, from 1: of the test rows if there are any."""
        if self.test_rows is None and self.row_numbers is not None:
            return self.row_numbers
        return np.arange(1, len(self.rows if self.test_rows is None else self.test_rows) + 1)


TrainingData: TypeAlias = TableData | ImageData | VideoData


def read_table_data(path: Path, modality: Modality, settings: DataSettings, *, to_judge: bool = False) -> TableData:
    """Read and check the rows or readings at `path`.

    `to_judge`: it is judged, not learned from, so it may hold anomalies only, a single row or a channel that is dead.
    Raises DataError for data that cannot be used.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder, and {modality} data is one .npz, .csv or .parquet file.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_arrays(path, modality, settings, to_judge=to_judge)
    if suffix in {".csv", ".parquet"} or path.name.lower().endswith(".csv.gz"):
        from cloud.training.tables import read_table

        table = read_table(path, settings, needs_time=modality is Modality.SERIES)
        data = checked(
            path,
            modality,
            table.columns,
            table.rows,
            settings,
            labels=table.labels,
            notes=table.notes,
            to_judge=to_judge,
            faults=table.faults,
        )
        column, step_s = (table.times.column, table.times.step_s) if table.times is not None else ("", 0.0)
        return dataclasses.replace(
            data,
            categories=table.categories,
            decimal=table.decimal,
            time_column=column,
            step_s=step_s,
            row_numbers=table.row_numbers,
        )
    raise DataError(
        f"{path}: {modality} data is a .npz, .csv or .parquet file, not {suffix or 'a file without suffix'}."
    )


def checked(
    path: Path,
    modality: Modality,
    columns: Sequence[str],
    rows: NDArray[np.float64],
    settings: DataSettings,
    *,
    labels: NDArray[np.bool_] | None = None,
    test_rows: NDArray[np.float64] | None = None,
    test_labels: NDArray[np.bool_] | None = None,
    notes: tuple[str, ...] = (),
    to_judge: bool = False,
    faults: NDArray[np.bool_] | None = None,
) -> TableData:
    """Return the table after the checks for every format. Raises DataError that names row and column."""
    if not len(rows) or not len(columns):
        raise DataError(f"{path}: holds no {'rows' if len(columns) else 'columns of numbers'}.")
    _check_columns(path, columns, rows, settings, to_judge=to_judge)
    faults = faults if faults is not None else np.zeros(len(rows), dtype=np.bool_)
    if modality is Modality.TABULAR:
        rows[faults] = np.nan  # so that they are rejected where values may be missing, too
    find = partial(_usable_rows, modality=modality, settings=settings, columns=columns)
    usable = find(rows) & ~faults
    if not usable.all() and settings.bad_rows == "refuse":
        raise DataError(_describe_bad(path, columns, rows, usable, settings))
    if not usable.all():
        notes += (f"{np.count_nonzero(~usable)} rows with NaN, infinite or unreadable values were left out",)
    if test_rows is not None and not find(test_rows).all():
        if settings.bad_rows == "refuse":
            raise DataError(_describe_bad(path, columns, test_rows, find(test_rows), settings, "test row"))
        if modality is Modality.TABULAR and test_labels is not None:
            test_rows, test_labels = test_rows[find(test_rows)], test_labels[find(test_rows)]
    if not to_judge:
        normal = rows[usable & ~labels] if labels is not None else rows[usable]
        if not len(normal):
            raise DataError(f"{path}: no usable normal rows; a label of 0 means normal. Check the label column.")
        notes += _check_normal(path, columns, normal, settings)
    return TableData(
        modality,
        str(path),
        tuple(columns),
        rows,
        usable,
        labels,
        test_rows,
        test_labels,
        notes,
        missing=settings.missing == "allow",
        mode_column=settings.mode_column,
    )


def _read_arrays(path: Path, modality: Modality, settings: DataSettings, *, to_judge: bool) -> TableData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        raise DataError(f"{path}: not a readable .npz file of plain arrays ({error}).") from None
    needed, label = ("X", "y") if modality is Modality.TABULAR else ("train", "label")
    if needed not in arrays:
        raise DataError(f"{path}: holds no array {needed!r} but {', '.join(sorted(arrays)) or 'nothing'}; rename it.")
    rows = _as_table(path, needed, arrays[needed])
    prefix = "x" if modality is Modality.TABULAR else "channel"
    columns = column_names(arrays) or [f"{prefix}{index + 1}" for index in range(rows.shape[1])]
    if len(columns) != rows.shape[1]:
        raise DataError(f"{path}: {len(columns)} names for {rows.shape[1]} columns. Store one for each.")
    if settings.columns:
        raise DataError(f"{path}: data.columns names columns, and the columns of a .npz file have no names; unset it.")
    notes = rising_notes(columns, rows) if not to_judge and settings.rising == "leave_out" else ()
    check = partial(checked, path, modality, columns, rows, settings, notes=notes, to_judge=to_judge)
    if modality is Modality.TABULAR:
        labels = _as_labels(path, label, arrays.get(label), len(rows))
        return check(labels=labels)
    if "test" not in arrays:
        return check()
    test = _as_table(path, "test", arrays["test"])
    if test.shape[1] != rows.shape[1]:
        raise DataError(f"{path}: 'train' has {rows.shape[1]} channels and 'test' has {test.shape[1]}.")
    test_labels = _as_labels(path, label, arrays.get(label), len(test))
    if test_labels is None:
        return check()
    return check(test_rows=test, test_labels=test_labels)


def _as_table(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DataError(f"{path}: {name!r} is {array.dtype} of shape {array.shape}, and rows of numbers are needed.")
    return array.astype(np.float64)


def _as_labels(path: Path, name: str, array: NDArray[Any] | None, count: int) -> NDArray[np.bool_] | None:
    if array is None:
        return None
    array = array.reshape(len(array), -1).max(axis=1) if array.ndim == 2 and array.shape[1:] == (1,) else array
    if array.shape != (count,) or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise DataError(f"{path}: {name!r} is {array.dtype} of shape {array.shape}; {count} labels 0 or 1 are needed.")
    return np.asarray(array != 0, dtype=np.bool_)


def _check_columns(
    path: Path, columns: Sequence[str], rows: NDArray[np.float64], settings: DataSettings, *, to_judge: bool
) -> None:
    """Raise DataError for a mode column there is not, or, to learn from, for a column without a single value."""
    mode = settings.mode_column
    if mode and mode not in columns:
        raise DataError(f"{path}: has no column {mode!r}; it has {', '.join(columns[:12])}. Set --mode-column.")
    if mode and len(columns) < 2:
        raise DataError(f"{path}: holds nothing but the mode column {mode!r}, so there is nothing to learn.")
    if to_judge:
        return
    empty = [name for name, missing in zip(columns, np.asarray(np.isnan(rows).all(axis=0)), strict=True) if missing]
    if empty:
        raise DataError(
            f"{path}: column {', '.join(map(repr, empty[:8]))} holds no value at all. Leave it out: name the others "
            "with data.columns in --config, or remove it from the file."
        )


def _check_normal(
    path: Path, columns: Sequence[str], normal: NDArray[np.float64], settings: DataSettings
) -> tuple[str, ...]:
    """Return notes on the usable normal rows. Raises DataError for columns or modes that cannot be learned."""
    measured = [index for index, name in enumerate(columns) if name != settings.mode_column]
    observed = ~np.isnan(normal)
    for index in measured:
        if not observed[:, index].any():
            raise DataError(
                f"{path}: column {columns[index]!r} is missing in every normal row. Leave it out: name the others with "
                "data.columns in --config, or remove it from the file."
            )
    highest = np.where(observed, normal, -np.inf).max(axis=0)
    lowest = np.where(observed, normal, np.inf).min(axis=0)
    constant = [columns[index] for index in measured if highest[index] == lowest[index]]
    if len(constant) == len(measured):
        raise DataError(f"{path}: every column is constant over the normal rows, so there is nothing to learn.")
    if settings.mode_column:
        found = np.unique(normal[:, list(columns).index(settings.mode_column)].astype(np.float32))
        if len(found) > MAX_MODES:
            raise DataError(
                f"{path}: column {settings.mode_column!r} has {len(found)} different values in the normal rows, and "
                f"there are at most {MAX_MODES} operating modes: number them, or set another --mode-column."
            )
    if not constant:
        return ()
    return (f"constant in the normal data: {', '.join(constant[:8])}{' ...' if len(constant) > 8 else ''}",)


def _usable_rows(
    rows: NDArray[np.float64], *, modality: Modality, settings: DataSettings, columns: Sequence[str]
) -> NDArray[np.bool_]:
    """(n,) whether all of a row is finite, also as the float32 that travels.

    Where values may be missing, NaN is as good, but for the mode, and for a tabular row of nothing else.
    """
    fine = _fine(rows)
    if settings.missing == "refuse":
        return np.asarray(fine.all(axis=1))
    missing = np.isnan(rows)
    measured = np.array([name != settings.mode_column for name in columns])
    fine |= missing & measured
    empty = missing[:, measured].all(axis=1) if modality is Modality.TABULAR else np.False_
    return np.asarray(fine.all(axis=1) & ~empty)


def _fine(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(rows) <= np.finfo(np.float32).max)


def _describe_bad(
    path: Path,
    columns: Sequence[str],
    rows: NDArray[np.float64],
    usable: NDArray[np.bool_],
    settings: DataSettings,
    what: str = "row",
) -> str:
    position = int(np.argmin(usable))
    more = np.count_nonzero(~usable) - 1
    others = f" and {more} other rows are like it" if more else ""
    where = f"{path}: {what} {position + 1}"
    advice = "leave such rows out with --drop-bad-rows"
    row = rows[position]
    too_large = ~_fine(row) & ~np.isnan(row)
    if settings.missing == "allow" and not too_large.any():
        mode = list(columns).index(settings.mode_column) if settings.mode_column else -1
        fault = f"has no mode in column {settings.mode_column!r}" if mode >= 0 and np.isnan(row[mode]) else "is empty"
        return f"{where} {fault}{others}. Repair the data, or {advice}."
    column = int(np.argmax(too_large if settings.missing == "allow" else ~_fine(row)))
    value = row[column]
    if np.isnan(value):
        return (
            f"{where}, column {columns[column]!r} is NaN or missing{others}. Repair the data, {advice}, or let values "
            "be missing with --allow-missing."
        )
    return f"{where}, column {columns[column]!r} is {value}, which is too large{others}. Repair the data, or {advice}."
