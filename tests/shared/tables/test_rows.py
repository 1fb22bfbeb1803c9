"""Fast and slow parsing agree, portions do not matter, and every text is a number, a missing value or a fault."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DataError
from shared.tables.cells import NumberReader
from shared.tables.columns import RowNumbers, rises_by_one
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


def live(header: str = "a,b", *, hint: str = "") -> RowParser:
    parser = RowParser("table.csv", header, hint=hint, is_live=True)
    parser.select(parser.names)
    return parser


def test_one_row_does_not_prove_row_numbers() -> None:
    assert not rises_by_one(["5"])
    assert rises_by_one(["5", "6"])
    with pytest.raises(DataError, match="the rows have 3 fields"):
        parsed(["5,60.0,3.1"], "a,b")


@pytest.mark.parametrize("first", ["5,60.0,3.1", "x9,60,3.1", "??,??"])
def test_a_single_first_row_that_does_not_fit_is_a_fault_and_the_header_stays(first: str) -> None:
    parser = live()
    rows = parser.parse([first], at_start=True)
    assert [fault.row for fault in rows.faults] == [0]
    later = parser.parse(["60.0,3.1", "61,3"])
    assert not later.faults
    np.testing.assert_array_equal(later.values, [[60, 3.1], [61, 3]])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_row_whose_number_does_not_rise_is_a_fault(size: int) -> None:
    lines = ["3,60,1", "x,61,1", "5,62,1", "60,3.1,", "7,63,1", "8,64", "9,65,1", "1,66,1", "2,67,1"]
    parser = live()
    parser.fit(["1,58,1", "2,59,1"])
    portions = [parser.parse(lines[start : start + size]) for start in range(0, len(lines), size)]
    faulty = [start * size + fault.row for start, rows in enumerate(portions) for fault in rows.faults]
    assert faulty == [1, 3, 5, 7]


def test_row_numbers_go_on_from_a_wrong_one_or_from_the_last_right_one() -> None:
    numbers = RowNumbers()
    assert [numbers.is_next(cell) for cell in ["7", "8", "1", "2", "", "4", "90", "6"]] == [
        True, True, False, True, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["5,60,3"], True),
        (["5,60,3", "6,60,3"], False),
        (["x9,60,3"], False),
        (["60,3"], False),
        (["bar,mm"], True),
        (["bar,mm", "60,3"], False),
        (["bar,mm", "5,60,3"], True),
        (["bar,mm", "5,60,3", "6,60,3"], False),
        (["", "NA,NA"], False),
        ([], False),
    ],
)
def test_a_live_table_waits_only_for_a_row_that_decides(lines: list[str], expected: bool) -> None:
    parser = live()
    assert parser.needs_more(lines, at_start=True) is expected
    parser.fit(lines)
    assert not parser.needs_more(lines, at_start=True)


@pytest.mark.parametrize(
    ("text", "value"), [("1.234", 1234.0), ("1,234", 1.234), ("0.868", 0.868), ("60.5", 60.5), ("1.234e1", 12.34)]
)
def test_a_number_with_two_readings_follows_the_training_table(text: str, value: float) -> None:
    assert NumberReader(delimiter=";", hint=",").read(text) == value
    assert live("a;b", hint=",").parse([f"{text};1"]).values[0, 0] == value
