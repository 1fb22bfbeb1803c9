"""CSV and Parquet tables: which column is the label, which the time, and whether the rest are numbers."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.settings import DataSettings
from shared.errors import DataError

LABEL_COLUMNS = ("label", "labels", "anomaly", "is_anomaly", "anomalous", "outlier", "y", "target", "attack")
AMBIGUOUS_COLUMNS = frozenset({"y", "target"})  # also a sensor's second axis, or a setpoint
TIME_COLUMNS = ("timestamp", "time", "datetime", "date", "ts")
NORMAL_WORDS = frozenset({"0", "0.0", "false", "no", "normal", "good", "ok", "benign", "inlier"})


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers of a table: `rows` (n, columns) float64 and `labels` (n,) bool, true for anomalies, or None."""

    columns: tuple[str, ...]
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def read_table(path: Path, settings: DataSettings, *, needs_time: bool = False) -> Table:
    """Read a CSV or Parquet file; raises DataError that names file, column and row.

    The time column is left out of the rows; where `needs_time`, rows must be in its order.
    """
    frame = _read_frame(path)
    names = [str(name) for name in frame.columns]
    frame.columns = names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} appears twice; rename one of them.")
    plausible = [name for name in names if settings.label_column or _may_be_labels(name, frame[name])]
    label = _pick(path, plausible, settings.label_column, LABEL_COLUMNS, "--label-column")
    time = _pick(path, names, settings.time_column, TIME_COLUMNS, "--time-column")
    if time and needs_time:
        _check_order(path, frame[time], time)
    named = settings.columns
    if named and settings.mode_column and settings.mode_column not in named:
        named = (*named, settings.mode_column)
    wanted = _wanted(path, names, named) or [name for name in names if name not in {label, time}]
    notes = tuple(
        f"column {name!r} is taken as the {role}" for name, role in ((label, "label"), (time, "time")) if name
    )
    rows = np.empty((len(frame), len(wanted)), dtype=np.float64)
    for index, name in enumerate(wanted):
        rows[:, index] = _numbers(path, name, frame[name])
    labels = _labels(path, label, frame[label]) if label else None
    return Table(tuple(wanted), rows, labels, notes)


def _read_frame(path: Path) -> Any:
    import pandas

    try:
        if path.suffix.lower() == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, skipinitialspace=True)
    except pandas.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty.") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:  # parser errors of pandas and pyarrow are ValueErrors
        raise DataError(f"{path}: not a readable table ({' '.join(str(error).split())}).") from None


def _pick(path: Path, names: Sequence[str], wanted: str, usual: Sequence[str], option: str) -> str:
    """The column that is meant: the one asked for, else one with a usual name, else none."""
    if wanted:
        if wanted not in names:
            raise DataError(f"{path}: has no column {wanted!r}{_nearest(wanted, names)} Set {option}.")
        return wanted
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), "")


def _wanted(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in names:
            raise DataError(f"{path}: has no column {name!r}{_nearest(name, names)} Set data.columns.")
    return list(columns)


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names[:12])}."


def _numbers(path: Path, name: str, column: Any) -> NDArray[np.float64]:
    """The column as float64; an empty cell is NaN."""
    import pandas

    if column.dtype.kind in "fiub":
        return np.asarray(column, dtype=np.float64)
    numbers = pandas.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & column.notna())
    if len(wrong):
        raise DataError(
            f"{path}: row {wrong[0] + 1}, column {name!r} is {str(column.iloc[wrong[0]])[:40]!r}, not a number. Name "
            "the columns to use with data.columns in --config, or its role with --label-column or --time-column."
        )
    return np.asarray(numbers, dtype=np.float64)


def _labels(path: Path, name: str, column: Any) -> NDArray[np.bool_]:
    """(n,) true where the label is not 0; words for normal count as 0."""
    if column.isna().any():
        row = int(np.argmax(column.isna())) + 1
        raise DataError(f"{path}: row {row}, label column {name!r} is empty; 0 is normal, 1 anomalous.")
    if column.dtype.kind in "fiub":
        result: NDArray[np.bool_] = np.asarray(column, dtype=np.float64) != 0
        return result
    words = column.astype(str).str.strip().str.lower()
    return np.asarray(~words.isin(NORMAL_WORDS), dtype=np.bool_)


def _may_be_labels(name: str, column: Any) -> bool:
    """Whether a column with a usual name holds labels; where that name has other uses, its values decide."""
    if name.strip().lower() not in AMBIGUOUS_COLUMNS or column.dtype.kind not in "fi":
        return True
    numbers = np.asarray(column, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return bool(((numbers >= 0) & (numbers == np.floor(numbers))).all())


def _check_order(path: Path, column: Any, name: str) -> None:
    """Readings must be in the order of time: a window across a jump back has never happened."""
    import pandas

    try:
        times = column if column.dtype.kind in "fiuM" else pandas.to_datetime(column)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: time column {name!r} cannot be read ({' '.join(str(error).split())[:80]}).") from None
    steps = np.diff(np.asarray(times))
    back = np.flatnonzero(steps < np.zeros((), dtype=steps.dtype))
    if len(back):
        raise DataError(
            f"{path}: row {back[0] + 2} is earlier than the row before it in {name!r}; sort the file by it."
        )
