"""`vedette demo` as a command: output and clean-up after every kind of end."""

import json
from pathlib import Path

import pytest
import typer

from cloud.demo import run
from cloud.demo.commands import demo
from shared.errors import DataError, DemoError


def test_a_failure_is_valid_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_HOME", str(tmp_path))
    with pytest.raises(DataError):
        demo(json_path=tmp_path / "out.json", folder=tmp_path / "demo", images=tmp_path / "nowhere")
    failure = json.loads((tmp_path / "out.json").read_text())
    assert failure["status"] == "failed"
    assert "nowhere" in failure["error"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), DemoError("the service failed")])
def test_the_summary_is_written_before_the_console_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    class Lingering:
        def __init__(self, *_: object) -> None: ...

        def run(self, keep) -> None:
            keep({"devices": {}})
            raise end

    monkeypatch.setattr(run, "Demo", Lingering)
    monkeypatch.setenv("VEDETTE_HOME", str(tmp_path))
    with pytest.raises((typer.Exit, DemoError)):
        demo(json_path=tmp_path / "out.json", folder=tmp_path / "demo")
    assert json.loads((tmp_path / "out.json").read_text()) == {"devices": {}}
