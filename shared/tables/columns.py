"""Columns of a text table: names, cells of a row, and the rules for headers that do not fit their rows.

* Names are trimmed. Empty cells at the end of header and rows are ignored.
* A header that is one field short of its rows: an empty last cell is a trailing delimiter; first cells of at least two
  rows that are whole numbers and rise by one are row numbers without a name; anything else is refused. A live input
  refuses such rows one by one.
* A column without a name is never used.
* A first row without any number, above a row with numbers, holds units and is skipped.
* A name that appears twice is refused if its column is used.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.errors import DataError
from shared.tables.cells import BOOLEAN_WORDS, NumberReader, is_missing
from shared.tables.dialect import split_cells

MAX_SAMPLE_ROWS = 200  # rows that decide about the header
_MAX_LISTED = 12
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Cells of a row. `names`: one per cell, "" for a cell without a name. `has_units`: the first row holds units.

    `has_row_numbers`: the first cell is a row number that the header does not name.
    """

    names: tuple[str, ...]
    has_units: bool = False
    has_row_numbers: bool = False
    notes: tuple[str, ...] = field(default=())

    def position(self, name: str) -> int:
        """Return the position of a column among the cells of a row."""
        return self.names.index(name)


def read_header(origin: object, line: str, delimiter: str) -> tuple[str, ...]:
    """Return the trimmed names of a header line. Raises DataError for a header that cannot be used."""
    try:
        names = split_cells(line, delimiter)
    except ValueError as error:
        raise DataError(f"{origin}: header line: {error} A record must be one line.") from None
    while names and not names[-1]:
        names.pop()
    if len(names) > 1 and _are_readings(names):
        raise DataError(
            f"{origin}: the first line holds numbers ({listed(names)}), not names. Add a header line to the file."
        )
    return tuple(names)


def fit_layout(
    origin: object, names: Sequence[str], rows: Sequence[Sequence[str]], *, at_start: bool, is_live: bool = False
) -> Layout:
    """Fit header names to the first rows of a table.

    Args:
        origin: name of the file, for messages.
        names: from `read_header`.
        rows: trimmed cells of the first rows.
        at_start: whether `rows` begin right after the header.
        is_live: whether rows that do not fit are rejected one by one, rather than the whole table.

    Raises:
        DataError: the rows have one field more than the header, and it is not a row number.
    """
    notes: list[str] = []
    has_units = at_start and _may_be_units(rows) and any(map(is_number, rows[1] if len(rows) > 1 else ()))
    if has_units:
        notes.append(f"row 1 holds units ({listed(rows[0])}) and is skipped")
    data = [without_empty_end(row, len(names)) for row in rows[has_units:]]
    names = list(names)
    is_short = bool(data) and all(len(row) == len(names) + 1 for row in data)
    has_row_numbers = is_short and rises_by_one([row[0] for row in data])
    if is_short and not (has_row_numbers or is_live):
        raise DataError(
            f"{origin}: the rows have {len(data[0])} fields and the header {len(names)} ({listed(names)}): "
            "name each column in the header."
        )
    if has_row_numbers:
        names = ["", *names]
        notes.append("the header is one field short: the first column holds row numbers and is left out")
    elif any(len(row) < len(cells) for row, cells in zip(data, rows[has_units:], strict=True)):
        notes.append("each row ends with an empty cell, which is ignored")
    elif "" in names:
        notes.append(f"column {names.index('') + 1} has no name and is left out")
    return Layout(tuple(names), has_units, has_row_numbers, tuple(notes))


def needs_more_rows(names: Sequence[str], rows: Sequence[Sequence[str]], *, at_start: bool) -> bool:
    """Return whether the next row decides if the first one holds units, or a row number.

    Args:
        names: from `read_header`.
        rows: trimmed cells of the first rows.
        at_start: whether `rows` begin right after the header.
    """
    may_be_units = at_start and _may_be_units(rows)
    if len(rows) == 1 and may_be_units:
        return True
    data = rows[1:] if may_be_units and any(map(is_number, rows[1])) else rows
    if len(data) != 1:
        return not data
    row = without_empty_end(data[0], len(names))
    return len(row) == len(names) + 1 and whole_number(row[0]) is not None


def without_empty_end(cells: Sequence[str], count: int) -> Sequence[str]:
    """Return the cells without empty ones beyond the first `count`."""
    end = len(cells)
    while end > count and not cells[end - 1]:
        end -= 1
    return cells[:end]


def check_columns(origin: object, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError that names the wanted columns that are absent, or present twice."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{origin}: lacks column {listed(missing)}; it has {listed([name for name in names if name])}. Rename the "
            "columns, or train a bundle on these."
        )
    twice = [name for name in wanted if list(names).count(name) > 1]
    if twice:
        raise DataError(f"{origin}: column {listed(twice)} appears more than once. Rename one of them.")


def rises_by_one(texts: Sequence[str]) -> bool:
    """Return whether the cells are at least two whole numbers, each one more than the cell before."""
    numbers = [number for number in map(whole_number, texts) if number is not None]
    if len(numbers) != len(texts) or len(numbers) < 2:
        return False
    return all(after - before == 1 for before, after in itertools.pairwise(numbers))


def whole_number(text: str) -> int | None:
    """Return the whole number of a cell; None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) else None


class RowNumbers:
    """Checks that row numbers rise by one.

    After a wrong number, the next one may continue either from it or from the last right one.
    """

    def __init__(self) -> None:
        """Accept any whole number first."""
        self._following: set[int] = set()
        self._expected: int | None = None

    def is_next(self, cell: str) -> bool:
        """Return whether the cell of the next row holds the next number. "" stands for a row that cannot be split."""
        number = whole_number(cell)
        is_right = number is not None and (not self._following or number in self._following)
        right = number if is_right else self._expected
        self._expected = None if right is None else right + 1
        self._following = {
            value for value in (self._expected, None if number is None else number + 1) if value is not None
        }
        return is_right


def listed(names: Sequence[str]) -> str:
    """Return names for a message, shortened."""
    shown = ", ".join(repr(name[:40]) for name in names[:_MAX_LISTED])
    return f"{shown} and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else shown or "none"


def is_number(text: str) -> bool:
    """Return whether a cell could be a number or a boolean in some format; a missing value is none."""
    if is_missing(text):
        return False
    for decimal in ".,":
        try:
            NumberReader(decimal).read(text)
        except ValueError:
            continue
        return True
    return False


def _are_readings(names: Sequence[str]) -> bool:
    """Return whether all names are numbers, other than the positions 0, 1, 2 ... that some programs write."""
    return not rises_by_one(names) and all(is_number(name) and name.lower() not in BOOLEAN_WORDS for name in names)


def _may_be_units(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row holds no number but some text."""
    return bool(rows) and not any(map(is_number, rows[0])) and not all(map(is_missing, rows[0]))
