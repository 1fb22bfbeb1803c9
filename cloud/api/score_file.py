"""Files of scores: CSV or Parquet by their suffix, written row by row."""

import csv
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from cloud.api.scores import MAX_CONTRIBUTIONS, SampleScore
from shared.errors import FileNotWrittenError, MissingExtraError, SettingsError

CSV_SUFFIX, PARQUET_SUFFIX = ".csv", ".parquet"
_FLAGS = ("extrapolated",)
_TEXTS = ("id", "file", "time", "decision", "reason")
COLUMNS = (
    "id",
    "file",
    "time",
    "score",
    "p_value",
    "extrapolated",
    "decision",
    *(f"{part}_{rank}" for rank in range(1, MAX_CONTRIBUTIONS + 1) for part in ("contribution", "share")),
    "reason",
)
ROWS_PER_GROUP = 4096


class ScoreFile(AbstractContextManager["ScoreFile"], Protocol):
    """Writer of scores. The file is complete when its context ends without an error, else it does not exist."""

    def write(self, score: SampleScore) -> None:
        """Add one row. Raises FileNotWrittenError."""
        ...


def open_score_file(path: Path) -> ScoreFile:
    """Return the writer for the suffix of `path`. Raises SettingsError for another suffix."""
    suffix = path.suffix.lower()
    if suffix == CSV_SUFFIX:
        return CsvScores(path)
    if suffix == PARQUET_SUFFIX:
        return ParquetScores(path)
    raise SettingsError(f"{path}: scores are written as {CSV_SUFFIX} or {PARQUET_SUFFIX}. Change --output.")


def row_of(score: SampleScore) -> dict[str, Any]:
    """Return the row of a sample, with None for absent values."""
    row: dict[str, Any] = {
        "id": score.id,
        "file": score.file,
        "time": score.time,
        "score": score.score,
        "p_value": score.p_value,
        "extrapolated": score.extrapolated,
        "decision": score.decision,
        "reason": score.reason,
    }
    for rank in range(MAX_CONTRIBUTIONS):
        name, share = score.contributions[rank] if rank < len(score.contributions) else (None, None)
        row |= {f"contribution_{rank + 1}": name, f"share_{rank + 1}": share}
    return {column: row[column] for column in COLUMNS}


def _reason(error: Exception) -> str:
    """Return the system's own words, without its number and the name of the temporary file."""
    return getattr(error, "strerror", None) or str(error)


class _UnfinishedFile:
    """File under a temporary name, renamed at a good end and deleted at a bad one."""

    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, path.with_name(f".{path.name}.unfinished")

    def _end(self, *, is_complete: bool) -> None:
        try:
            if is_complete:
                self._unfinished.replace(self._path)
            else:
                self._unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> FileNotWrittenError:
        return FileNotWrittenError(f"{self._path}: cannot be written ({_reason(error)}).")


class CsvScores(_UnfinishedFile):
    """Scores as CSV in UTF-8; an absent value is an empty cell, a flag is true or false."""

    def __enter__(self) -> Self:
        """Open the file and write the header."""
        try:
            self._file: IO[str] = self._unfinished.open("w", encoding="utf-8", newline="")
            self._writer = csv.DictWriter(self._file, COLUMNS)
            self._writer.writeheader()
        except OSError as error:
            raise self._failure(error) from None
        return self

    def write(self, score: SampleScore) -> None:
        """See `ScoreFile.write`."""
        try:
            row = row_of(score)
            self._writer.writerow(row | {name: str(row[name]).lower() for name in _FLAGS})
        except OSError as error:
            raise self._failure(error) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as failure:
            self._end(is_complete=False)
            raise self._failure(failure) from None
        self._end(is_complete=kind is None)


class ParquetScores(_UnfinishedFile):
    """Scores as Parquet, in row groups of ROWS_PER_GROUP; an absent value is null."""

    def __enter__(self) -> Self:
        """Open the file. Raises MissingExtraError without pyarrow."""
        try:
            import pyarrow
            from pyarrow.parquet import ParquetWriter
        except ImportError:
            raise MissingExtraError("Parquet files need pyarrow: pip install 'vedette[parquet]'.") from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, _arrow_type(pyarrow, name)) for name in COLUMNS])
        self._rows: list[dict[str, Any]] = []
        try:
            self._writer = ParquetWriter(self._unfinished, self._schema)
        except OSError as error:
            raise self._failure(error) from None
        return self

    def write(self, score: SampleScore) -> None:
        """See `ScoreFile.write`."""
        self._rows.append(row_of(score))
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush(self._rows)
            self._rows = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Write the last rows and close the file."""
        try:
            if kind is None and self._rows:
                self._flush(self._rows)
            self._writer.close()
        except OSError as failure:
            self._end(is_complete=False)
            raise self._failure(failure) from None
        self._end(is_complete=kind is None)

    def _flush(self, rows: Iterable[dict[str, Any]]) -> None:
        try:
            self._writer.write_table(self._arrow.Table.from_pylist(list(rows), schema=self._schema))
        except OSError as error:
            raise self._failure(error) from None


def _arrow_type(arrow: Any, column: str) -> Any:
    if column in _FLAGS:
        return arrow.bool_()
    return arrow.string() if column in _TEXTS or column.startswith("contribution_") else arrow.float64()
