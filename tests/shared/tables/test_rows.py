"""Fast and slow parsing agree, portions do not matter, and every text is a number, a missing value or a fault."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.tables.cells import NumberReader
from shared.tables.rows import ChannelColumns, RowParser, Rows

CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.text("0123456789+-.eEinfa_x%() #'", max_size=7),
    st.sampled_from(["", "NA", "true", "no", "1_0", "inf", "nan", "NaN", " 5 ", "1,5"]),
)


def parsed(lines: list[str], header: str = "a;b") -> Rows:
    parser = RowParser("table.csv", header)
    parser.select(parser.names)
    return parser.parse(lines)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_rows_are_the_same_alone_and_together(cells: list[tuple[str, str]]) -> None:
    lines = [f"{first};{second}" for first, second in cells]
    parser = RowParser("table.csv", "a;b")
    parser.select(parser.names)
    together = parser.parse(lines)
    faults = {fault.row: fault.reason for fault in together.faults}
    for position, line in zip(together.positions.tolist(), lines, strict=True):
        alone = parser.parse([line])
        np.testing.assert_array_equal(alone.values[0], together.values[position])
        assert [fault.reason for fault in alone.faults] == ([faults[position]] if position in faults else [])


@given(CELLS)
def test_a_parsed_cell_is_what_the_reader_of_numbers_says(cell: str) -> None:
    rows = parsed(["0;0", f"{cell};1"])
    try:
        expected = NumberReader(delimiter=";").read(cell.strip())
    except ValueError:
        assert [fault.row for fault in rows.faults] == [1]
    else:
        assert not rows.faults
        np.testing.assert_equal(rows.values[1, 0], expected)


def test_a_category_never_seen_is_in_no_channel_and_a_missing_one_is_missing() -> None:
    columns = ChannelColumns(("x", "pump=off", "pump=on"), {"pump": ("off", "on")})
    assert columns.texts == ("pump",)
    parser = RowParser("table.csv", "pump,x")
    parser.select(columns.numeric, columns.texts)
    rows = parser.parse(["on,1", "broken,2", ",3"])
    expected = [[1, 0, 1], [2, 0, 0], [3, np.nan, np.nan]]
    np.testing.assert_array_equal(columns.assemble(rows), expected)


def test_the_choices_are_one_line_each() -> None:
    parser = RowParser("table.csv", "a;b")
    parser.select(parser.names)
    parser.parse(["bar;mm", "1,5;2"], at_start=True)
    assert parser.describe() == (
        "read as UTF-8, delimiter semicolon, decimal comma",
        "row 1 holds units ('bar', 'mm') and is skipped",
    )
