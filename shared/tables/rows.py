"""Lines of a text table as rows of numbers.

The same parser reads whole files and lines that arrive one at a time.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.tables.cells import BOOLEAN_WORDS, NumberReader, is_missing
from shared.tables.columns import (
    MAX_SAMPLE_ROWS,
    Layout,
    RowNumbers,
    check_columns,
    fit_layout,
    needs_more_rows,
    read_header,
    without_empty_end,
)
from shared.tables.dialect import describe, detect_delimiter, split_cells
from shared.tables.settings import TableSettings

MISSING_REASON = "and the bundle was trained without missing values"
_MAX_UNDECIDED_ROWS = 2  # units, and a first row with a number
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be read. `row`: its position in `Rows.values`, where the cell is NaN."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Parsed lines. Blank lines and a units row are left out.

    `positions`: (n,) line of each row among the lines given; `values`: (n, numeric columns) float64; `texts`: (n,)
    cells of each text column; `faults`: at most one per row.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    texts: tuple[list[str], ...]
    faults: list[Fault]


class RowParser:
    """Parses the lines of one text table.

    The header is fitted to the first lines that are parsed (see `shared.tables.columns`), and the decimal mark is
    decided by the first number that allows one reading only.
    """

    def __init__(
        self,
        origin: object,
        header: str,
        settings: TableSettings | None = None,
        *,
        hint: str = "",
        is_live: bool = False,
    ) -> None:
        """Read the header line.

        Args:
            origin: name of the file, for messages.
            header: the header line.
            settings: format of the table; detected if absent.
            hint: decimal mark of the training data; it decides about numbers that allow two readings.
            is_live: whether lines arrive over time. Then rows that do not fit the header are faults, and `needs_more`
                tells whether to wait for another line.

        Raises:
            DataError: the header cannot be used.
        """
        settings = settings if settings is not None else TableSettings()
        self._origin, self._is_live = origin, is_live
        self.delimiter = detect_delimiter(header, settings)
        self.names = read_header(origin, header, self.delimiter)
        self.numbers = NumberReader(settings.decimal, delimiter=self.delimiter, hint=hint)
        self.layout: Layout | None = None
        self._row_numbers = RowNumbers()
        self._numeric: tuple[str, ...] = ()
        self._texts: tuple[str, ...] = ()
        self._is_missing_fault = False

    def select(self, numeric: Sequence[str], texts: Sequence[str] = (), *, missing: bool = True) -> None:
        """Choose the columns to parse.

        Args:
            numeric: columns of numbers, in the order of `Rows.values`.
            texts: columns whose cells are returned as they are.
            missing: whether a missing value is NaN; else it is a fault of its row.

        Raises:
            DataError: a column is absent, or present twice.
        """
        check_columns(self._origin, self.names, [*numeric, *texts])
        self._numeric, self._texts, self._is_missing_fault = tuple(numeric), tuple(texts), not missing

    def fit(self, lines: Sequence[str], *, at_start: bool = True) -> Layout:
        """Fit header and decimal mark to the first lines, once. Raises DataError if they do not belong together."""
        if self.layout is None:
            sample, at_start = self._sample(lines, at_start)
            self.layout = fit_layout(self._origin, self.names, sample, at_start=at_start, is_live=self._is_live)
            self._observe(self.layout, _not_blank(lines, MAX_SAMPLE_ROWS)[self.layout.has_units :])
        return self.layout

    def needs_more(self, lines: Sequence[str], *, at_start: bool) -> bool:
        """Return whether another line decides about the meaning of these first ones; False once `fit` was called."""
        count = len(_not_blank(lines, MAX_SAMPLE_ROWS))
        if self.layout is not None or not 0 < count <= _MAX_UNDECIDED_ROWS:
            return False
        sample, at_start = self._sample(lines, at_start)
        return needs_more_rows(self.names, sample, at_start=at_start)

    def sample_columns(self, lines: Sequence[str]) -> dict[str, list[str]]:
        """Return the cells of the first rows by column, without a units row. Call `fit` first."""
        layout = self.fit(lines)
        rows = [self._row(layout, line) for line in _not_blank(lines, MAX_SAMPLE_ROWS)[layout.has_units :]]
        data = [row for row in rows if not isinstance(row, str)]
        return {name: [row[place] for row in data] for place, name in enumerate(layout.names) if name}

    def parse(self, lines: Sequence[str], *, at_start: bool = False) -> Rows:
        """Parse lines.

        Args:
            lines: any number of lines, without or with their line ends.
            at_start: whether the first of them follows the header, so that it may hold units.
        """
        kept = [position for position, line in enumerate(lines) if line and not line.isspace()]
        if not kept:
            return self._no_rows()
        layout = self.fit([lines[position] for position in kept[:MAX_SAMPLE_ROWS]], at_start=at_start)
        kept = kept[at_start and layout.has_units :]
        if not kept:
            return self._no_rows()
        if at_start:
            self._row_numbers = RowNumbers()
        chosen = [lines[position].rstrip("\r\n") for position in kept]
        self._observe(layout, chosen)
        values, texts, faults = self._fast(layout, chosen) or self._by_column(layout, chosen)
        return Rows(np.array(kept, dtype=np.int64), values, texts, faults)

    def cells(self, line: str, *, at_start: bool = False) -> dict[str, str] | None:
        """Return the cells of one line by their columns; None for a blank line or units.

        Raises ValueError for a line that cannot be split into the columns of the header.
        """
        if not line or line.isspace():
            return None
        layout = self.fit([line], at_start=at_start)
        if at_start and layout.has_units:
            return None
        cells = self._row(layout, line)
        if layout.has_row_numbers and not self._row_numbers.is_next("" if isinstance(cells, str) else cells[0]):
            cells = _not_next(cells)
        if isinstance(cells, str):
            raise ValueError(cells)
        self._observe(layout, [line])
        return {name: cell for name, cell in zip(layout.names, cells, strict=True) if name}

    def describe(self, encoding: str = "utf-8") -> tuple[str, ...]:
        """Return one line about the format, unless it is the usual one, and one for each choice about the header."""
        text = describe(encoding, self.delimiter, self.numbers.decimal)
        notes = self.layout.notes if self.layout is not None else ()
        return ((text,) if text else ()) + notes

    def _no_rows(self) -> Rows:
        return Rows(np.empty(0, np.int64), np.empty((0, len(self._numeric))), ([],) * len(self._texts), [])

    def _sample(self, lines: Sequence[str], at_start: bool) -> tuple[list[list[str]], bool]:
        """Return the first rows that can be split, and whether the first of them follows the header."""
        rows = list(map(self._cells, _not_blank(lines, MAX_SAMPLE_ROWS)))
        sample = [row for row in rows if not isinstance(row, str)]
        return sample, at_start and bool(rows) and not isinstance(rows[0], str)

    def _observe(self, layout: Layout, lines: Sequence[str]) -> None:
        """Decide the decimal mark from the first row that allows it."""
        for line in lines:
            if self.numbers.decimal:
                return
            if "." in line or ('"' if self.delimiter == "," else ",") in line:
                row = self._row(layout, line)
                if not isinstance(row, str):
                    self.numbers.observe(row)

    def _cells(self, line: str) -> list[str] | str:
        """Return the cells of a line, or the reason why there are none."""
        try:
            return split_cells(line, self.delimiter)
        except ValueError as error:
            return f"cannot be split: {error}"

    def _row(self, layout: Layout, line: str) -> Sequence[str] | str:
        """Return one cell per name, or the reason why the line cannot be split so."""
        cells = self._cells(line)
        if isinstance(cells, str):
            return cells
        row = without_empty_end(cells, len(layout.names))
        if len(row) != len(layout.names):
            return f"has {len(row)} cells, and the header {len(layout.names)}: one is missing or too many."
        return row

    def _fast(
        self, layout: Layout, lines: Sequence[str]
    ) -> tuple[NDArray[np.float64], tuple[list[str], ...], list[Fault]] | None:
        """Parse plain numbers with NumPy; None if a line holds anything else."""
        if not self._numeric or self._texts or layout.has_row_numbers:
            return None
        if not _have_cells(lines, self.delimiter, len(layout.names)):
            return None
        if self.delimiter != ",":
            marks = any("," in line for line in lines)
            if marks and (self.numbers.decimal != "," or any("." in line for line in lines)):
                return None
            if marks:
                lines = [line.replace(",", ".") for line in lines]
            elif self.numbers.decimal == "," and any("." in line for line in lines):
                return None
        with contextlib.suppress(ValueError, IndexError):
            values: NDArray[np.float64] = np.loadtxt(
                lines,
                dtype=np.float64,
                delimiter=self.delimiter or "\x1f",
                usecols=[layout.position(name) for name in self._numeric],
                ndmin=2,
                comments=None,
            )
            if len(values) == len(lines):
                return values, (), []
        return None

    def _by_column(
        self, layout: Layout, lines: Sequence[str]
    ) -> tuple[NDArray[np.float64], tuple[list[str], ...], list[Fault]]:
        faults: dict[int, Fault] = {}
        count = len(layout.names)
        empty = [""] * count
        rows: list[Sequence[str]] = []
        for position, line in enumerate(lines):
            cells = line.split(self.delimiter) if self.delimiter and '"' not in line else []  # trimmed by column
            if len(cells) == count:
                rows.append(cells)
                continue
            row = self._row(layout, line)
            if isinstance(row, str):
                faults[position] = Fault(position, "", row)
                row = empty
            rows.append(row)
        columns: list[Sequence[str]] = list(zip(*rows, strict=True))
        if any(map(_SPACE.search, lines)):
            columns = [list(map(str.strip, column)) for column in columns]
        if layout.has_row_numbers:
            for position, cell in enumerate(columns[0]):
                if not self._row_numbers.is_next(cell):
                    faults.setdefault(position, Fault(position, "", _not_next(rows[position])))
        values = np.full((len(lines), len(self._numeric)), np.nan)
        for index, name in enumerate(self._numeric):
            values[:, index] = self._read_column(name, columns[layout.position(name)], faults)
        texts = tuple(list(columns[layout.position(name)]) for name in self._texts)
        if self._is_missing_fault:
            for name, column in zip(self._texts, texts, strict=True):
                for position, text in enumerate(column):
                    if is_missing(text):
                        faults.setdefault(position, Fault(position, name, _missing(name, text)))
        return values, texts, [faults[position] for position in sorted(faults)]

    def _read_column(self, name: str, cells: Sequence[str], faults: dict[int, Fault]) -> NDArray[np.float64]:
        if (plain := self._plain(cells)) is not None:
            with contextlib.suppress(ValueError):
                return np.fromiter(map(float, plain), np.float64, len(cells))
        known: dict[str, float] = dict(BOOLEAN_WORDS)
        values = np.full(len(cells), np.nan)
        for position, text in enumerate(cells):
            if (value := known.get(text)) is not None:
                values[position] = value
                continue
            if is_missing(text):
                if self._is_missing_fault and text.lower() != "nan":
                    faults.setdefault(position, Fault(position, name, _missing(name, text)))
                continue
            try:
                values[position] = known[text] = self.numbers.read(text)
            except ValueError as error:
                faults.setdefault(position, Fault(position, name, f"column {name!r}: {error}"))
        return values

    def _plain(self, cells: Sequence[str]) -> Sequence[str] | None:
        """Return cells that `float` reads as `NumberReader` would; None if there are others."""
        joined = "\n".join(cells)
        if not joined.isascii() or "_" in joined:
            return None
        if self.numbers.decimal == ",":
            if "." in joined:
                return None
            cells = joined.replace(",", ".").split("\n")
        elif "," in joined:
            return None
        return cells if self._is_missing_fault else [cell or "nan" for cell in cells]


def _have_cells(lines: Sequence[str], delimiter: str, count: int) -> bool:
    """Return whether each line has `count` unquoted cells, or one more that is empty."""
    if any('"' in line for line in lines):
        return False
    if not delimiter:
        return not any(character in line for line in lines for character in ",;\t")
    counts = [line.count(delimiter) for line in lines]
    if max(counts) == min(counts) == count - 1:
        return True
    if min(counts) < count - 1 or max(counts) > count:
        return False
    return all(line.rstrip().endswith(delimiter) for line, found in zip(lines, counts, strict=True) if found == count)


def _not_next(cells: Sequence[str] | str) -> str:
    """Return the reason for a row whose number is wrong, or the one it has already."""
    return cells if isinstance(cells, str) else f"has the row number {cells[0][:40]!r}, which does not rise by one."


def _missing(name: str, text: str) -> str:
    return f"column {name!r} is missing ({text[:40]!r}), {MISSING_REASON}."


def _not_blank(lines: Sequence[str], count: int) -> list[str]:
    return [line for line in lines if line and not line.isspace()][:count]


class ChannelColumns:
    """Maps the columns of a table to the channels of a bundle.

    A channel is a column of numbers, or one value of a category column: 1 in rows that hold this value, else 0.
    """

    def __init__(self, channels: Sequence[str], categories: Mapping[str, Sequence[str]]) -> None:
        """Map columns to channels.

        Args:
            channels: names in the order of the bundle.
            categories: values of each category column; `category_channel` names their channels.
        """
        self._categories = {
            category_channel(column, value): (column, value)
            for column, values in categories.items()
            for value in values
            if category_channel(column, value) in channels
        }
        self._channels = tuple(channels)
        self.numeric = tuple(name for name in channels if name not in self._categories)
        self.texts = tuple(dict.fromkeys(column for column, _ in self._categories.values()))

    def category(self, channel: str) -> tuple[str, str] | None:
        """Return column and value of a category's channel; None for a channel of numbers."""
        return self._categories.get(channel)

    def assemble(self, rows: Rows) -> NDArray[np.float64]:
        """Return (n, channels) float64 in the order of the bundle."""
        if not self._categories:
            return rows.values
        columns: dict[str, NDArray[np.float64]] = {}
        texts = dict(zip(self.texts, rows.texts, strict=True))
        for channel, (column, value) in self._categories.items():
            columns[channel] = one_hot(texts[column], value)
        for index, name in enumerate(self.numeric):
            columns[name] = rows.values[:, index]
        return np.stack([columns[name] for name in self._channels], axis=1)


def category_channel(column: str, value: str) -> str:
    """Return the name of the channel for one value of a category column."""
    return f"{column}={value}"


def one_hot(texts: Sequence[str], value: str) -> NDArray[np.float64]:
    """Return (n,) 1 where the text is `value`, 0 elsewhere, NaN where it is missing."""
    return np.array([np.nan if is_missing(text) else float(text == value) for text in texts], dtype=np.float64)
