"""Order of the rows of a series by their column of times: the same refusal in training and in a replay."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from shared.tables.cells import is_missing
from shared.tables.reader import CHUNK_ROWS, TEXT_SUFFIXES, CsvFile, next_batch, open_parquet, texts_of
from shared.tables.settings import TableSettings
from shared.tables.times import first_step_back, parse_column

TIME_COLUMNS = ("timestamp", "time", "datetime", "date", "ts")


def usual_time_column(names: Sequence[str]) -> str:
    """Return the column with a usual name of times, in any case; "" if there is none."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in TIME_COLUMNS if name in lower), "")


def order_fault(path: Path, row: int, column: str) -> DataError:
    """Return the error for a row, counted from 1, whose time is earlier than the one before it."""
    return DataError(
        f"{path}: row {row} is earlier than the row before it in {column!r}; sort the file by it. If day and month are "
        "swapped, set table.dates."
    )


def check_order(path: Path, channels: Sequence[str], settings: TableSettings) -> None:
    """Raise DataError if the rows of a CSV or Parquet file step back in time, apart from the end of daylight saving.

    Checked is a column with a usual name that is no channel. If one of its cells is no time, the order is unknown.
    """
    read = _texts_of_csv if path.name.lower().endswith(TEXT_SUFFIXES) else _texts_of_parquet
    name, texts, rows = read(path, channels, settings)
    present = np.array([not is_missing(text) for text in texts], dtype=np.bool_)
    try:
        times = _seconds([text for text in texts if not is_missing(text)], settings.dates)
    except ValueError:
        return
    position, _ = first_step_back(times)
    if position >= 0:
        raise order_fault(path, int(rows[present][position]), name)


def _seconds(texts: Sequence[str], dates: str) -> NDArray[np.float64]:
    if "%" not in dates:
        try:
            return np.array([float(text) for text in texts])
        except ValueError:
            pass
    return parse_column(texts, dates)[0]


def _texts_of_csv(
    path: Path, channels: Sequence[str], settings: TableSettings
) -> tuple[str, list[str], NDArray[np.int64]]:
    """Return name and cells of the column of times, and the number of each row from 1."""
    file = CsvFile(path, settings)
    name = usual_time_column([name for name in file.parser.names if name not in channels])
    texts, rows = list[str](), [np.empty(0, np.int64)]
    if name and file.parser.names.count(name) == 1:
        file.parser.select([], [name])
        for first, portion in file.portions():
            texts += portion.texts[0]
            rows.append(portion.positions + first + 1)
    return name, texts, np.concatenate(rows)


def _texts_of_parquet(
    path: Path, channels: Sequence[str], settings: TableSettings
) -> tuple[str, list[str], NDArray[np.int64]]:
    """Return name and cells of the column of times, and the number of each row from 1."""
    texts = list[str]()
    with open_parquet(path) as file:
        names = list(file.schema_arrow.names)
        name = usual_time_column([name for name in names if name not in channels])
        if name and names.count(name) == 1:
            batches = iter(file.iter_batches(CHUNK_ROWS, columns=[name]))
            while (batch := next_batch(path, batches)) is not None:
                texts += texts_of(batch.column(name))
    return name, texts, np.arange(1, len(texts) + 1)
