"""Tables in CSV, Parquet and NPZ files, read in chunks: memory does not grow with the file."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError, MissingExtraError
from shared.tables.cells import is_missing
from shared.tables.columns import MAX_SAMPLE_ROWS, Layout, check_columns, listed
from shared.tables.dialect import HEAD_BYTES, TextEncoding, detect_encoding
from shared.tables.rows import ChannelColumns, RowParser, Rows
from shared.tables.settings import TableSettings

CHUNK_ROWS = 4096
READ_BYTES = 2**20
MAX_LINE_BYTES = 2**24
TEXT_SUFFIXES = (".csv", ".csv.gz")
_ARRAYS = ("X", "test", "values")
_NAMES = ("channels", "columns", "feature_names", "names")


@dataclass(frozen=True, slots=True)
class Chunk:
    """`values`: (rows, channels) float32, or (windows, length, channels). `rows`: (rows,) numbers from 0.

    `unreadable`: position in the chunk and reason of each row with a cell that cannot be read; that cell is NaN.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    unreadable: Sequence[tuple[int, str]] = ()


class Table(Protocol):
    """A file of readings. `rank`: 2 for rows, 3 for windows. `notes`: one line for each choice of the reader."""

    rank: int
    notes: tuple[str, ...]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the whole file in order. Raises DataError if it cannot be read further."""
        ...


def open_table(
    path: Path,
    channels: tuple[str, ...],
    array: str | None = None,
    *,
    missing: bool = False,
    categories: Mapping[str, Sequence[str]] | None = None,
    settings: TableSettings | None = None,
    hint: str = "",
) -> Table:
    """Open the table in a `.csv`, `.csv.gz`, `.parquet` or `.npz` file, with its columns in the order of `channels`.

    Args:
        path: the file.
        channels: names of a bundle's channels.
        array: key inside an NPZ file.
        missing: whether a missing value is NaN; else it is a fault of its row.
        categories: values of each category column of the bundle.
        settings: format of a text table; detected if absent.
        hint: decimal mark of the training table.

    Raises:
        DataError: names the file, and the column that is missing or the shape that does not fit.
    """
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file. Correct the source's path.")
    columns = ChannelColumns(channels, categories or {})
    if name.endswith(TEXT_SUFFIXES):
        return CsvTable(path, columns, missing=missing, settings=settings, hint=hint)
    if name.endswith(".parquet"):
        return ParquetTable(path, columns)
    if name.endswith(".npz"):
        return NpzTable(path, channels, array)
    raise DataError(f"{path}: a replay reads .csv, .csv.gz, .parquet and .npz files.")


class CsvFile:
    """A text table with a header line. `encoding` and `parser` are made from its start."""

    def __init__(self, path: Path, settings: TableSettings | None = None, *, hint: str = "") -> None:
        """Read header and first rows. Raises DataError if they cannot be read."""
        settings = settings if settings is not None else TableSettings()
        self._path = path
        with self._open() as file:
            head = self._read(file, HEAD_BYTES)
        self.encoding: TextEncoding = detect_encoding(head, settings.encoding)
        lines = self._lines()
        self.parser = RowParser(path, next(lines, ""), settings, hint=hint)
        self._sample: list[str] = []
        for line in lines:
            self._sample.append(line)
            if len(self._sample) >= MAX_SAMPLE_ROWS:
                break

    def fit(self) -> Layout:
        """Fit header and decimal mark to the first rows. Raises DataError if they do not belong together."""
        return self.parser.fit(self._sample)

    @property
    def sample(self) -> list[str]:
        """First rows after the header."""
        return self._sample

    def portions(self) -> Iterator[tuple[int, Rows]]:
        """Yield the number of the first line after the header, from 0, and the rows of up to CHUNK_ROWS lines."""
        lines = self._lines()
        next(lines, "")
        first, portion = 0, list[str]()
        failure: DataError | None = None
        while failure is None:
            try:
                line = next(lines, None)
            except DataError as error:  # the rows before it are good
                line, failure = None, error
            if line is not None:
                portion.append(line)
            if portion and (line is None or len(portion) >= CHUNK_ROWS):
                yield first, self.parser.parse(portion, at_start=first == 0)
                first, portion = first + len(portion), []
            if line is None:
                break
        if failure is not None:
            raise failure

    def _lines(self) -> Iterator[str]:
        encoding, rest, is_first = self.encoding, b"", True
        with self._open() as file:
            while data := self._read(file, READ_BYTES):
                if is_first:
                    data, is_first = data[encoding.bom_bytes :], False
                lines, rest = encoding.split_lines(rest + data)
                yield from map(encoding.decode, lines)
                if len(rest) > MAX_LINE_BYTES:
                    raise DataError(f"{self._path}: a line is longer than {MAX_LINE_BYTES} bytes.")
        if rest:
            yield encoding.decode(rest)

    def _open(self) -> IO[bytes]:
        try:
            if self._path.suffix.lower() == ".gz":
                return cast(IO[bytes], gzip.open(self._path))
            return self._path.open("rb")
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error}).") from None

    def _read(self, file: IO[bytes], count: int) -> bytes:
        try:
            return file.read1(count) if isinstance(file, gzip.GzipFile) else file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._path}: cannot be read further ({error}).") from None


class CsvTable:
    """A text table, its columns as the channels of a bundle."""

    rank = 2

    def __init__(
        self,
        path: Path,
        columns: ChannelColumns,
        *,
        missing: bool = False,
        settings: TableSettings | None = None,
        hint: str = "",
    ) -> None:
        """See `open_table`."""
        self._columns = columns
        self._file = CsvFile(path, settings, hint=hint)
        self._file.parser.select(columns.numeric, columns.texts, missing=missing)
        self._file.fit()
        self.notes = self._file.parser.describe(self._file.encoding.name)

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        for first, rows in self._file.portions():
            if len(rows.positions):
                unreadable = [(fault.row, fault.reason) for fault in rows.faults]
                yield Chunk(as_float32(self._columns.assemble(rows)), rows.positions + first, unreadable)


class ParquetTable:
    """A Parquet file. A null is a missing value; a column of text is refused unless it is a category."""

    rank = 2
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, columns: ChannelColumns) -> None:
        """See `open_table`."""
        self._path, self._columns = path, columns
        with open_parquet(path) as file:
            schema = file.schema_arrow
            check_columns(path, schema.names, [*columns.numeric, *columns.texts])
            types = {name: str(schema.field(name).type) for name in columns.numeric}
            self._refuse_texts(file, [name for name, kind in types.items() if not is_numeric(kind)], types)

    def _refuse_texts(self, file: Any, names: Sequence[str], types: Mapping[str, str]) -> None:
        """Raise DataError for a column of another type than numbers, unless all of its cells are missing."""
        for name in names:
            first, batches = 0, iter(file.iter_batches(CHUNK_ROWS, columns=[name]))
            while (batch := next_batch(self._path, batches)) is not None:
                for position, text in enumerate(texts_of(batch.column(name))):
                    if not is_missing(text):
                        raise DataError(
                            f"{self._path}: row {first + position + 1}, column {name!r}: {text[:40]!r} is not a number "
                            f"(the column holds {types[name]}). Convert the file."
                        )
                first += batch.num_rows

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        first = 0
        wanted = [*self._columns.numeric, *self._columns.texts]
        with open_parquet(self._path) as file:
            batches = iter(file.iter_batches(CHUNK_ROWS, columns=wanted))
            while (batch := next_batch(self._path, batches)) is not None:
                numbers = [floats_of(batch.column(name)) for name in self._columns.numeric]
                texts = tuple(texts_of(batch.column(name)) for name in self._columns.texts)
                count = batch.num_rows
                values = np.stack(numbers, axis=1) if numbers else np.empty((count, 0))
                rows = Rows(np.arange(count), values, texts, [])
                yield Chunk(as_float32(self._columns.assemble(rows)), np.arange(first, first + count, dtype=np.int64))
                first += count


def open_parquet(path: Path) -> Any:
    """Open a Parquet file. Raises MissingExtraError without pyarrow, DataError for a file that is not Parquet."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("Parquet files need pyarrow: pip install 'vedette[parquet]'.") from None
    try:
        return ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)}).") from None


def next_batch(path: Path, batches: Iterator[Any]) -> Any:
    """Return the next record batch, or None at the end. Raises DataError if the file cannot be read further."""
    from pyarrow import ArrowException

    try:
        return next(batches, None)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read further ({_first_line(error)}).") from None


def is_numeric(kind: str) -> bool:
    """Return whether an Arrow type holds numbers or booleans."""
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "bool", "decimal"))


def floats_of(column: Any) -> NDArray[np.float64]:
    """Return an Arrow column as float64; a null is NaN, and so is all of a column of another type than numbers."""
    if not is_numeric(str(column.type)):
        return np.full(len(column), np.nan)
    values = column.to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def texts_of(column: Any) -> list[str]:
    """Return an Arrow column as trimmed texts; a null is empty.

    A timestamp is ISO 8601: in UTC with `Z` if the column has a zone, else without a zone.
    """
    kind = str(column.type)
    if kind.startswith("timestamp["):
        unit, _, zone = kind.removeprefix("timestamp[").removesuffix("]").partition(",")
        moments = column.view("int64").fill_null(0).to_numpy(zero_copy_only=False)
        empty = column.is_null().to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(moments.astype(f"datetime64[{unit}]"))
        return ["" if absent else f"{text}{'Z' if zone else ''}" for text, absent in zip(texts, empty, strict=True)]
    return ["" if value is None else str(value).strip() for value in column.to_pylist()]


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".")


class NpzTable:
    """An array in an NPZ file: (rows, channels), or (windows, length, channels)."""

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, channels: tuple[str, ...], array: str | None) -> None:
        """See `open_table`."""
        values, names = _load(path, array)
        if values.ndim == 1:
            values = values[:, np.newaxis]
        if values.ndim not in (2, 3) or values.dtype.kind not in "fiub":
            raise DataError(f"{path}: an array of shape {values.shape} and type {values.dtype} holds no readings.")
        self.rank: int = values.ndim
        if names is not None and len(names) != values.shape[-1]:
            raise DataError(f"{path}: {len(names)} names for {values.shape[-1]} columns. Store one for each.")
        if names is not None:
            check_columns(path, names, channels)
            values = values[..., [names.index(channel) for channel in channels]]
        elif values.shape[-1] != len(channels):
            raise DataError(
                f"{path}: {values.shape[-1]} columns, and the bundle wants {len(channels)} ({listed(channels)}). "
                "Store their names in the file as 'channels' to pick them by name."
            )
        self._values = values

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self._values.shape)

    def chunks(self) -> Iterator[Chunk]:
        """See `Table.chunks`."""
        for start in range(0, len(self._values), CHUNK_ROWS):
            portion = self._values[start : start + CHUNK_ROWS]
            yield Chunk(
                np.ascontiguousarray(as_float32(portion)), np.arange(start, start + len(portion), dtype=np.int64)
            )


def column_names(arrays: Mapping[str, NDArray[Any]]) -> list[str] | None:
    """Return the names of columns that an NPZ file stores beside its arrays; None if it stores none."""
    names = next((arrays[key] for key in _NAMES if key in arrays), None)
    return None if names is None else [str(name).strip() for name in names.ravel()]


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return values as float32; a value beyond its range is infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _load(path: Path, array: str | None) -> tuple[NDArray[Any], list[str] | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = array or next((key for key in _ARRAYS if key in archive.files), None)
            if key is None or key not in archive.files:
                wanted = repr(array) if array else "X, test or values"
                found = listed(archive.files)
                raise DataError(f"{path}: holds no array {wanted} but {found}. Set the source's array.")
            names = {name: archive[name] for name in _NAMES if name in archive.files}
            return archive[key], column_names(names)
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable NPZ file ({error}).") from None
