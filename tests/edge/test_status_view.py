"""The live view of a running agent, of a stopped one, and without one."""

import contextlib
import fcntl
import io
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console

from edge.operation.inspection import read_status
from edge.operation.status_view import page, watch
from shared.errors import DataError
from shared.status import ObservedStatus
from tests.edge.device import Device


def drawn(console: Console, status: ObservedStatus, before: ObservedStatus, seconds: float) -> str:
    console.print(page(status, before, seconds))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_a_running_agent_is_drawn_with_its_rates_and_one_that_has_gone_as_such(
    device: Device, console: Console
) -> None:
    device.settings["sources"][0].update(loop=True, rate_per_s=200)
    device.settings["alarms"] = [{"id": "log", "kind": "file", "path": device.folder / "alarms.jsonl"}]
    device.settings["router"]["false_alarms_per_day"] = 40_000  # which 500 held-out rows resolve
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) > 100)
    before, started_s = read_status(device.state), time.monotonic()
    time.sleep(1.0)
    status, seconds = read_status(device.state), time.monotonic() - started_s
    text = drawn(console, status, before, seconds)
    assert "running, process" in text
    assert "plant" in text
    assert "alarms to log" in text
    assert "No problems." in text
    rate = float(next(line for line in text.splitlines() if "/s" in line).split("│")[1].strip().removesuffix("/s"))
    assert 100 < rate < 300
    device.kill()
    text = drawn(console, read_status(device.state), status, 1.0)
    assert "does not answer" in text


@pytest.mark.timeout(90)
def test_the_command_draws_on_a_terminal_until_it_is_interrupted(device: Device) -> None:
    device.settings["sources"][0].update(loop=True, rate_per_s=200)
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) > 0)
    command = [Path(sys.executable).parent / "vedette", "edge", "status", "--watch", "--config", device.config]
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        # Whoever starts the tests in the background has interrupts ignored, and processes inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    shown, interrupted = b"", False
    with contextlib.suppress(OSError):  # which is how a terminal says that its last program has ended
        while data := os.read(ours, 65536):
            shown += data
            if not interrupted and shown.count(b"Sources") >= 2:
                os.write(ours, b"\x03")  # Ctrl-C
                interrupted = True
    assert process.wait(10) in (0, 130)
    os.close(ours)
    assert b"/s" in shown
    assert b"Traceback" not in shown


def test_without_an_agent_it_says_so(tmp_path: Path, console: Console) -> None:
    with pytest.raises(DataError, match="no status"):
        watch(tmp_path, console)
