"""Events are machine-readable lines, throttled against floods."""

import json
import logging
import time
from pathlib import Path

import pytest

from shared.logs import EventLog, Throttle, configure


def test_logs_are_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    for line_format in ("logfmt", "json"):
        configure("info", line_format)
        EventLog("test").info("happened", text='two\nlines "quoted"', share=0.123456789, path=Path("/a b"))
        EventLog("test").debug("unseen")
    logfmt, as_json = capsys.readouterr().err.splitlines()
    assert 'event=happened text="two\\nlines \\"quoted\\"" share=0.123457 path="/a b"' in logfmt
    assert json.loads(as_json)["text"] == 'two\nlines "quoted"'


def test_a_record_is_written_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure("error")
    EventLog("test").warning("unseen")
    EventLog("test").record("happened", by="ada")
    (line,) = capsys.readouterr().err.splitlines()
    assert "level=info component=test event=happened by=ada" in line


def test_a_throttle_holds_back_and_keeps_count() -> None:
    throttle = Throttle(0.1)
    assert throttle.allow("a") == 1
    assert [throttle.allow("a", 5), throttle.allow("a", 2)] == [0, 0]
    assert throttle.allow("b") == 1
    time.sleep(0.12)
    assert throttle.allow("a") == 8


def test_an_error_of_a_library_is_a_line_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure(libraries=True)
        try:
            raise ValueError("deep inside")
        except ValueError:
            logging.getLogger("some.library").exception("it failed")
        (line,) = capsys.readouterr().err.splitlines()
        assert 'component=some.library event="it failed" trace=' in line
        assert "deep inside" in line
    finally:
        root.handlers, root.propagate = before[0], True
        root.setLevel(before[1])
        logging.getLogger("vedette").handlers.clear()
        logging.getLogger("vedette").propagate = True
