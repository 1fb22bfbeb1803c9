"""The quick start of README.md, "From your data to a screener on a device", executed as it stands."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.system

README = Path(__file__).parents[2] / "README.md"
SECTION = "## From your data to a screener on a device"
ROWS = 300


def _script() -> str:
    """The section's commands, with less training and an agent that ends with its data."""
    section = README.read_text(encoding="utf-8").split(SECTION)[1]
    found = re.search(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    script = found[1].replace(". .venv/bin/activate", "set -e")
    for command, addition in (("vedette train", "--effort 0.05"), ("vedette edge run", "--until-done")):
        assert f"{command} " in script
        script = script.replace(f"{command} ", f"{command} {addition} ", 1)
    return f"{script}\nvedette edge status --config edge.toml --json > status.json\n"


def _write_readings(path: Path) -> None:
    """Correlated normal rows, the last of them far off."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 2)) @ np.array([[1.0, 0.5, -1.0, 2.0], [0.0, 1.0, 1.0, 0.5]])
    rows[-1] += 40
    np.savetxt(path, rows, delimiter=",", header="flow,pressure,current,speed", comments="")


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]


def test_the_quick_start_screens_and_gets_verdicts(tmp_path: Path) -> None:
    _write_readings(tmp_path / "readings.csv")
    listen, enrolment_listen, console_listen = _free_addresses(3)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VEDETTE_LISTEN": listen,
        "VEDETTE_ENROLMENT_LISTEN": enrolment_listen,
        "VEDETTE_CONSOLE_LISTEN": console_listen,
    }
    output = tmp_path / "output.txt"
    with output.open("w") as stream:
        shell = subprocess.Popen(
            ["bash", "-c", _script()],
            cwd=tmp_path,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the service in the background is of this group, too
        )
        try:
            assert shell.wait(timeout=300) == 0, output.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    counters = json.loads((tmp_path / "status.json").read_text())["counters"]
    assert counters["samples_screened"] == ROWS
    sent = counters["samples_forwarded"] + counters["samples_audited"]
    assert sent >= 1
    assert counters["verdicts"] == counters["samples_acknowledged"] == sent
    assert counters["verdicts_anomalous"] >= 1
