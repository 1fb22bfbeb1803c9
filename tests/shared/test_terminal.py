"""Tables and sentences on a terminal."""

import io

import pytest
from rich.console import Console

from shared.terminal import PIPE_WIDTH, new_console, print_table, print_text

HEADER = ["method", "VUS-PR", "recall at 5 % false alarms", "a_very_long_name_of_a_figure", "alarms", "AUROC"]
ROWS = [[f"screener_int8_onnxruntime_{n}[x]", "85.31", "83.33", "0.00", "1.82", "94.90"] for n in range(3)]


def printed(width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    print_table(console, "Methods [of a bundle]", HEADER, ROWS)
    assert console.width == width
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_no_name_or_figure_is_cut_at_any_width(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    assert "Methods [of a bundle]" in text.replace("\n", " ")
    for cell in (cell for row in [*ROWS, *(name.split() for name in HEADER)] for cell in row):
        assert cell in text
    widest = max(len(line) for line in text.splitlines() if "Methods" not in line)
    first_and_longest = len(ROWS[0][0]) + len(HEADER[3]) + 7
    assert widest <= max(width, first_and_longest)


def test_each_row_names_itself_in_every_part() -> None:
    assert printed(80).count(ROWS[0][0]) > 1
    assert printed(200).count(ROWS[0][0]) == 1


def test_a_pipe_gets_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert new_console().width == PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "80")
    assert new_console().width == 80


@pytest.mark.parametrize("is_terminal", [False, True])
def test_only_a_terminal_wraps_a_sentence(is_terminal: bool) -> None:
    out, sentence = io.StringIO(), "At 5 % false alarms the fused verdict finds 93.1 % of the [rare] anomalies."
    print_text(Console(file=out, width=30, force_terminal=is_terminal, color_system=None), sentence)
    assert (out.getvalue() == f"{sentence}\n") is not is_terminal
    assert " ".join(out.getvalue().split()) == sentence


def test_a_table_without_rows_is_its_header() -> None:
    out = io.StringIO()
    print_table(Console(file=out, width=80), "Empty", HEADER, [])
    assert "VUS-PR" in out.getvalue()
