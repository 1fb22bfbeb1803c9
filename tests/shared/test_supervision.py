"""A supervised process ends with everything it started, whatever that does about it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.supervision import SupervisedProcess, stoppable, uninterrupted

# A child that starts one helper in a session of its own, writes its process id, and sleeps; both may ignore SIGTERM.
FAMILY = """
import pathlib, signal, subprocess, sys, time
deaf = sys.argv[2] == "deaf"
subprocess.Popen([sys.executable, "-c", ""])  # ends, and is never asked for
helper = "import signal, time; {} time.sleep(60)".format(
    "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
)
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", helper], start_new_session=True)
time.sleep(0.3)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
if sys.argv[2] == "crash":
    sys.exit(3)
time.sleep(60)
"""


def start(tmp_path: Path, mode: str) -> tuple[SupervisedProcess, int]:
    told = tmp_path / "helper.pid"
    child = SupervisedProcess(
        [sys.executable, "-c", FAMILY, str(told), mode], log=tmp_path / "log", environment=os.environ, folder=tmp_path
    )
    deadline_s = time.monotonic() + 10
    while (not told.exists() or not told.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return child, int(told.read_text())


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def zombies() -> list[int]:
    """Children of this process that have ended and were not asked for."""
    stats = {int(path.name): path / "stat" for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = []
    for pid, path in stats.items():
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(pid)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("mode", ["polite", "deaf", "crash"])
def test_stop_ends_the_helpers_too_and_leaves_no_zombies(tmp_path: Path, mode: str) -> None:
    child, helper = start(tmp_path, mode)
    started_s = time.monotonic()
    child.stop(grace_s=0.5)
    assert time.monotonic() - started_s < 3
    assert not exists(child.pid)
    assert not exists(helper)
    assert child.exit_code() is not None
    assert zombies() == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_the_child_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from shared.supervision import SupervisedProcess\n"
        "child = SupervisedProcess([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " log=Path('log'), environment=os.environ, folder=Path('.'))\n"
        "Path('pid').write_text(str(child.pid)); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    told = tmp_path / "pid"
    deadline_s = time.monotonic() + 10
    while (not told.exists() or not told.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    pid = int(told.read_text())
    supervisor.kill()
    supervisor.wait()
    while _is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("INFO well\n\x1b[91mERROR\x1b[0m: the disk is full\nbye", "ERROR: the disk is full"),
        ("╭─ Error ───╮\n│ It is unavailable.  │\n╰──────╯", "It is unavailable."),
        ("INFO well\njust a line", "just a line"),
        ("", "it printed nothing"),
    ],
)
def test_the_complaint_is_the_line_that_tells_why(tmp_path: Path, printed: str, complaint: str) -> None:
    code = f"import sys; sys.stdout.buffer.write({printed!r}.encode()); raise SystemExit(4)"
    child = SupervisedProcess(
        [sys.executable, "-c", code], log=tmp_path / "log", environment=os.environ, folder=tmp_path
    )
    while child.exit_code() is None:
        time.sleep(0.02)
    assert child.exit_code() == 4
    assert child.complaint() == complaint


def test_output_is_that_of_this_child_only(tmp_path: Path) -> None:
    for word in ("first", "second"):
        child = SupervisedProcess(
            [sys.executable, "-c", f"print('{word}')"], log=tmp_path / "log", environment=os.environ, folder=tmp_path
        )
        while child.exit_code() is None:
            time.sleep(0.02)
        child.stop()
    assert child.output() == "second\n"
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_sigterm_lets_clean_up_run_and_a_second_one_does_not_disturb_it() -> None:
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stoppable():
        work()
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_waits_until_a_started_child_is_noted_and_does_not_make_it_deaf(
    tmp_path: Path, number: signal.Signals
) -> None:
    noted: list[SupervisedProcess] = []
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            noted.append(SupervisedProcess(sleeper, log=tmp_path / "log", environment=os.environ, folder=tmp_path))
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt), stoppable():
        work()
    started_s = time.monotonic()
    noted[0].stop(10.0)
    assert noted[0].exit_code() == -signal.SIGTERM
    assert time.monotonic() - started_s < 9.0
