"""Readings from CSV, Parquet and NPZ files, column by column as a bundle names them."""

import contextlib
import csv
import gzip
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError, MissingExtraError

CHUNK_ROWS = 4096
_ARRAYS = ("X", "test", "values")
_EMPTY = ("", "na", "n/a", "null", "none")  # beside NaN, which is a number
_NAMES = ("channels", "columns", "feature_names", "names")


@dataclass(frozen=True, slots=True)
class Chunk:
    """`values`: (rows, channels) float32, or (windows, length, channels). `rows`: (rows,) numbers from 0.

    `unreadable`: position in the chunk and reason of each row with a cell that is no number; that cell is NaN.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    unreadable: Sequence[tuple[int, str]] = ()


class Table(Protocol):
    """A file of readings. `rank` is 2 for rows, 3 for windows that were cut already."""

    rank: int

    def chunks(self) -> Iterator[Chunk]:
        """All of it from the start, in order; raises DataError if the file fails on the way."""
        ...


def open_table(path: Path, channels: tuple[str, ...], array: str | None = None, *, missing: bool = False) -> Table:
    """The table in a `.csv`, `.csv.gz`, `.parquet` or `.npz` file, its columns in the order of `channels`.

    `missing`: whether an empty cell is a missing value, NaN as any other, and not a fault of its row.
    Raises DataError that names the file, and the column that is missing or the shape that does not fit.
    """
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file. Correct the source's path.")
    if name.endswith((".csv", ".csv.gz")):
        return CsvTable(path, channels, missing=missing)
    if name.endswith(".parquet"):
        return ParquetTable(path, channels)
    if name.endswith(".npz"):
        return NpzTable(path, channels, array)
    raise DataError(f"{path}: a replay reads .csv, .csv.gz, .parquet and .npz files.")


class CsvRows:
    """Lines of CSV to the readings of some of its columns."""

    def __init__(self, origin: Path, header_line: str, channels: tuple[str, ...], *, missing: bool) -> None:
        """Raises DataError that names the column of `channels` that is not in the header, or twice."""
        self._channels, self._missing = channels, missing
        self._delimiter = max(",;\t", key=header_line.count)
        header = [cell.strip() for cell in _cells(header_line, self._delimiter)]
        self._columns = _match(origin, header, channels)

    def parse(self, lines: Sequence[str]) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
        """Values (lines, channels), and position and reason of each line with a cell that is no number.

        All lines are read at once or, if one of them is odd, line by line.
        """
        if not lines:
            return np.empty((0, len(self._columns)), dtype=np.float32), []
        with contextlib.suppress(ValueError, IndexError):
            values: NDArray[np.float32] = np.loadtxt(
                lines,
                dtype=np.float32,
                delimiter=self._delimiter,
                usecols=self._columns,
                ndmin=2,
                comments=None,
                quotechar='"',
            )
            if len(values) == len(lines):  # blank lines are left out, and would shift the row numbers
                return values, []
        return self._parse_one_by_one(lines)

    def _parse_one_by_one(self, lines: Sequence[str]) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
        values = np.full((len(lines), len(self._columns)), np.nan, dtype=np.float32)
        unreadable = []
        for position, line in enumerate(lines):
            cells = _cells(line, self._delimiter)
            for place, (column, channel) in enumerate(zip(self._columns, self._channels, strict=True)):
                text = cells[column].strip() if column < len(cells) else ""
                if self._missing and column < len(cells) and text.lower() in _EMPTY:
                    continue
                try:
                    with np.errstate(over="ignore"):
                        values[position, place] = np.float32(text)
                except ValueError:
                    fault = f"is no number: {text[:40]!r}" if text else "is missing"
                    unreadable.append((position, f"column {channel!r} {fault}."))
                    break
        return values, unreadable


class CsvTable:
    """A CSV file with a header line, read in chunks: memory does not grow with the file."""

    rank = 2

    def __init__(self, path: Path, channels: tuple[str, ...], *, missing: bool = False) -> None:
        self._path = path
        with self._open() as file:
            header_line = next(iter(self._read_lines(file, 1)), "")
        self._rows = CsvRows(path, header_line, channels, missing=missing)

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        first_row = 0
        with self._open() as file:
            file.readline()
            while lines := self._read_lines(file):
                values, unreadable = self._rows.parse(lines)
                rows = np.arange(first_row, first_row + len(lines), dtype=np.int64)
                first_row += len(lines)
                yield Chunk(values, rows, unreadable)

    def _open(self) -> IO[str]:
        try:
            if self._path.suffix.lower() == ".gz":
                return io.TextIOWrapper(gzip.open(self._path), encoding="utf-8-sig", errors="replace")
            return self._path.open(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error}).") from None

    def _read_lines(self, file: IO[str], count: int = CHUNK_ROWS) -> list[str]:
        try:
            return list(itertools.islice(file, count))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._path}: cannot be read further ({error}).") from None


class ParquetTable:
    """A Parquet file, read in chunks. A null is a missing value; a column of texts is refused."""

    rank = 2

    def __init__(self, path: Path, channels: tuple[str, ...]) -> None:
        self._path, self._channels = path, list(channels)
        with self._open() as file:
            schema = file.schema_arrow
            _match(path, schema.names, channels)
            types = {channel: schema.field(channel).type for channel in channels}
        texts = [channel for channel, kind in types.items() if not _is_numeric(str(kind))]
        if texts:
            raise DataError(f"{path}: column {_listed(texts)} holds {types[texts[0]]}, no numbers. Convert the file.")

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        first_row = 0
        with self._open() as file:
            parts = iter(file.iter_batches(CHUNK_ROWS, columns=self._channels))
            while (part := self._next(parts)) is not None:
                columns = [part.column(channel).to_numpy(zero_copy_only=False) for channel in self._channels]
                with np.errstate(over="ignore"):
                    values = np.stack([column.astype(np.float32) for column in columns], axis=1)
                yield Chunk(values, np.arange(first_row, first_row + len(values), dtype=np.int64))
                first_row += len(values)

    def _open(self) -> Any:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise MissingExtraError("Parquet files need pyarrow: pip install 'vedette[parquet]'.") from None
        try:
            return ParquetFile(self._path)
        except (OSError, ArrowException) as error:
            raise DataError(f"{self._path}: not a readable Parquet file ({_first_line(error)}).") from None

    def _next(self, parts: Iterator[Any]) -> Any:
        from pyarrow import ArrowException

        try:
            return next(parts, None)
        except (OSError, ArrowException) as error:
            raise DataError(f"{self._path}: cannot be read further ({_first_line(error)}).") from None


def _is_numeric(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "bool"))


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".")


class NpzTable:
    """An array in an NPZ file: (rows, channels), or (windows, length, channels)."""

    def __init__(self, path: Path, channels: tuple[str, ...], array: str | None) -> None:
        values, names = _load(path, array)
        if values.ndim == 1:
            values = values[:, np.newaxis]
        if values.ndim not in (2, 3) or values.dtype.kind not in "fiub":
            raise DataError(f"{path}: an array of shape {values.shape} and type {values.dtype} holds no readings.")
        self.rank: int = values.ndim
        if names is not None and len(names) != values.shape[-1]:
            raise DataError(f"{path}: {len(names)} names for {values.shape[-1]} columns. Store one for each.")
        if names is not None:
            values = values[..., list(_match(path, names, channels))]
        elif values.shape[-1] != len(channels):
            raise DataError(
                f"{path}: {values.shape[-1]} columns, and the bundle wants {len(channels)} ({_listed(channels)}). "
                "Store their names in the file as 'channels' to pick them by name."
            )
        self._values = values

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return tuple(self._values.shape)

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        for start in range(0, len(self._values), CHUNK_ROWS):
            part = self._values[start : start + CHUNK_ROWS]
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(part, dtype=np.float32)
            yield Chunk(values, np.arange(start, start + len(part), dtype=np.int64))


def _load(path: Path, array: str | None) -> tuple[NDArray[Any], list[str] | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = array or next((key for key in _ARRAYS if key in archive.files), None)
            if key is None or key not in archive.files:
                wanted = repr(array) if array else "X, test or values"
                found = _listed(archive.files)
                raise DataError(f"{path}: holds no array {wanted} but {found}. Set the source's array.")
            names = next((archive[key] for key in _NAMES if key in archive.files), None)
            return archive[key], None if names is None else [str(name) for name in names.ravel()]
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable NPZ file ({error}).") from None


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line; none where it is not CSV at all, as a cell of more than 128 KiB."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _match(path: Path, header: Sequence[str], channels: tuple[str, ...]) -> tuple[int, ...]:
    """The position of each channel in the header; raises DataError naming those that are not there, or twice."""
    missing = [channel for channel in channels if channel not in header]
    if missing:
        raise DataError(
            f"{path}: lacks column {_listed(missing)}; it has {_listed(header)}. Rename the columns, or train a bundle "
            "on these."
        )
    twice = [channel for channel in channels if header.count(channel) > 1]
    if twice:
        raise DataError(f"{path}: holds column {_listed(twice)} more than once. Rename one of them.")
    return tuple(header.index(channel) for channel in channels)


def _listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "none"
