"""All columns of a CSV or Parquet file, before their roles are known.

Times of a Parquet file become ISO 8601 texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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

_PARQUET_INDEX = "__index_level_"


@dataclass(slots=True)
class TableColumns:
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


def read_columns(path: Path, settings: DataSettings) -> TableColumns:
    """Read a CSV or Parquet file. Raises DataError for a file that cannot be read."""
    return _read_text(path, settings) if path.name.lower().endswith(TEXT_SUFFIXES) else _read_parquet(path)


def _read_text(path: Path, settings: DataSettings) -> TableColumns:
    file = CsvFile(path, settings.table, hint=settings.decimal_hint)
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
    return TableColumns(
        path,
        names,
        {name: joined[:, index] for index, name in enumerate(numeric)},
        dict(zip(texts, cells, strict=True)),
        faults,
        np.concatenate(lines),
        file.parser.describe(file.encoding.name),
        file.parser.numbers.decimal,
    )


def _read_parquet(path: Path) -> TableColumns:
    with open_parquet(path) as file:
        fields = [(field.name, str(field.type)) for field in file.schema_arrow]
        names = [name for name, _ in fields if not name.startswith(_PARQUET_INDEX)]
        unique = [name for name in names if names.count(name) == 1]
        numeric = [name for name, kind in fields if name in unique and is_numeric(kind)]
        numbers: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in numeric}
        texts: dict[str, list[str]] = {name: [] for name in unique if name not in numeric}
        count, batches = 0, iter(file.iter_batches(CHUNK_ROWS))
        while (batch := next_batch(path, batches)) is not None:
            for name in numeric:
                numbers[name].append(floats_of(batch.column(name)))
            for name, column in texts.items():
                column += texts_of(batch.column(name))
            count += batch.num_rows
    notes = ("the index column is left out",) if len(names) < len(fields) else ()
    joined = {name: np.concatenate(portions) for name, portions in numbers.items()}
    return TableColumns(path, names, joined, texts, [], np.arange(count), notes)


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
