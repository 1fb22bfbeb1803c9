"""The demo's tables name every device and show every figure at any width."""

import io

import pytest
from rich.console import Console

from cloud.demo.live import SUMMARY_COLUMNS, Screen
from cloud.demo.summary import total_summary
from shared.samples import Decision
from tests.cloud.demo.test_summary import STATUS, UUID, plan, summary


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_figure_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = summary({UUID(int=1): Decision.NORMAL, UUID(int=2): Decision.ANOMALOUS})
    device = "radiators-of-the-north-shuttle"
    out = io.StringIO()
    screen = Screen([plan()], headless=False)
    monkeypatch.setattr(screen, "_console", Console(file=out, width=width))
    screen.show_summary({"devices": {device: figures}, "total": total_summary({device: figures})})
    screen._console.print(screen._state({"d": STATUS}, 3.0, 60.0))
    shown = out.getvalue()
    assert "…" not in shown
    for text in (device, "0.500", "1.000", "50.0%", "pump-1-00000000", *" ".join(SUMMARY_COLUMNS).split()):
        assert text in shown


def test_each_step_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    plans = [plan() for _ in range(4)]
    with Screen(plans, headless=False) as screen:
        screen.print_line("word " * 200)
        screen.show({}, 3.0, 60.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].count("starting") == len(plans)
