"""Tables for the terminal that never cut a name or a figure, at any width and in a pipe."""

import os
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 400  # columns where the output is not a terminal and COLUMNS is not set
HEADER_WIDTH = 12  # a longer name of a column wraps at its spaces, unless its cells are wider
_FRAME, _PER_COLUMN = 1, 3  # characters of the frame, and of padding and border of each column


def new_console() -> Console:
    """Return a console as wide as the terminal; wide enough for any line in a pipe, so that each row is one line."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def print_text(console: Console, text: str, *, style: str = "") -> None:
    """Print a sentence; only a terminal wraps it, so that a line of a pipe never ends within a figure."""
    console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)


def print_table(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    left: Sequence[int] = (0,),
) -> None:
    """Print a table whose cells are never wrapped or cut; headers wrap at spaces.

    A table wider than the console becomes several, each with the first column.

    Args:
        console: Console to print to.
        title: Line above the table.
        header: Names of the columns.
        rows: Cells as plain text.
        left: Positions of columns aligned left; the others are aligned right.
    """
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    width = console.width
    tables, widest = fitting_tables(header, rows, width, left=left)
    console.width = max(width, widest)
    try:
        for table in tables:
            console.print(table)
    finally:
        console.width = width


def fitting_tables(
    header: Sequence[str], rows: Sequence[Sequence[str | Text]], limit: int, *, left: Sequence[int] = (0,)
) -> tuple[list[Table], int]:
    """Return tables of at most `limit` characters, and the width of the widest; see `print_table`.

    A table is wider only if its first column and one other do not fit.
    """
    widths = []
    for place, name in enumerate(header):
        cells = (cell.plain if isinstance(cell, Text) else cell for cell in (row[place] for row in rows))
        widths.append(max([min(len(name), HEADER_WIDTH), *map(cell_len, (*name.split(), *cells))]))
    parts, tables = _parts(widths, limit), []
    for places in parts:
        table = Table()
        for place in places:
            justify: JustifyMethod = "left" if place in left else "right"
            name = "\n".join(textwrap.wrap(header[place], widths[place]))
            table.add_column(escape(name), justify=justify, width=widths[place], no_wrap=True)
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else escape(cell) for cell in (row[at] for at in places)))
        tables.append(table)
    return tables, max(_width([widths[place] for place in places]) for places in parts)


def _parts(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Return the columns of each part: the first one, and as many others as fit into `limit` characters."""
    parts: list[list[int]] = [[0]]
    for place in range(1, len(widths)):
        if len(parts[-1]) > 1 and _width([widths[at] for at in (*parts[-1], place)]) > limit:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _width(widths: Sequence[int]) -> int:
    return _FRAME + sum(width + _PER_COLUMN for width in widths)
