"""Times of the rows of a table, as the file writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.tables.order import usual_time_column
from shared.tables.reader import TEXT_SUFFIXES, CsvFile, next_batch, open_parquet, texts_of

if TYPE_CHECKING:
    from cloud.api.inputs import TableOptions

_ROWS_PER_BATCH = 4096


def times_of(path: Path, count: int, options: "TableOptions") -> list[str]:
    """Return the text of the time column for each of `count` rows; empty without such a column."""
    name = path.name.lower()
    if name.endswith(TEXT_SUFFIXES):
        times = _csv_times(path, options)
    elif name.endswith(".parquet"):
        times = _parquet_times(path, options)
    else:
        times = []
    return times if len(times) == count else []


def _csv_times(path: Path, options: "TableOptions") -> list[str]:
    file = CsvFile(path, options.table)
    file.fit()
    column = _time_column(file.parser.names, options.time_column)
    if not column:
        return []
    file.parser.select((), [column])
    return [text for _, rows in file.portions() for text in rows.texts[0]]


def _parquet_times(path: Path, options: "TableOptions") -> list[str]:
    times: list[str] = []
    with open_parquet(path) as file:
        column = _time_column(file.schema_arrow.names, options.time_column)
        if not column:
            return []
        batches = iter(file.iter_batches(_ROWS_PER_BATCH, columns=[column]))
        while (batch := next_batch(path, batches)) is not None:
            times += texts_of(batch.column(column))
    return times


def _time_column(names: Sequence[str], named: str) -> str:
    """Return the name of the time column: `named`, else the first usual name; empty if there is none."""
    if not named:
        return usual_time_column(names)
    return next((name for name in names if name.lower() == named.lower()), "")
