"""A supervised process ends with all its child processes, even those that resist."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.supervision import SupervisedProcess

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
    others = set(zombies())  # of earlier tests in this process
    child, helper = start(tmp_path, mode)
    started_s = time.monotonic()
    child.stop(grace_s=0.5)
    assert time.monotonic() - started_s < 3
    assert not exists(child.pid)
    assert not exists(helper)
    assert child.exit_code() is not None
    assert set(zombies()) <= others


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
    assert child.last_error() == complaint


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


# Signals are sent in a process of their own: one of the tests' threads might get them before the main thread does.
STOPPED_TWICE = """
import os, signal, sys, time
from shared.supervision import stoppable

before = signal.getsignal(signal.SIGTERM)
try:
    with stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            print("it went on")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            print("cleaned")
except KeyboardInterrupt:
    print("interrupted")
print("restored" if signal.getsignal(signal.SIGTERM) == before else "changed")
"""
STOPPED_AT_A_START = """
import os, signal, sys, time
from pathlib import Path
from shared.supervision import SupervisedProcess, stoppable, interrupts_deferred

folder, number = Path(sys.argv[1]), int(sys.argv[2])
noted = []
try:
    with stoppable():
        with interrupts_deferred():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
            noted.append(SupervisedProcess(sleeper, log=folder / "log", environment=os.environ, folder=folder))
        print("it went on")
except KeyboardInterrupt:
    print("interrupted")
noted[0].stop(10.0)
print(noted[0].exit_code())
"""


def lines_of(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_sigterm_lets_clean_up_run_and_a_second_one_does_not_disturb_it() -> None:
    assert lines_of(STOPPED_TWICE) == ["cleaned", "interrupted", "restored"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_waits_until_a_started_child_is_noted_and_does_not_make_it_deaf(
    tmp_path: Path, number: signal.Signals
) -> None:
    said = lines_of(STOPPED_AT_A_START, str(tmp_path), str(int(number)))
    assert said == ["interrupted", str(-signal.SIGTERM)]
