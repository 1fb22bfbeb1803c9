"""A child process ends with its parent, also with one that ended before it could ask."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD = "import sys, time; from shared.parent_process import end_with_parent; end_with_parent(int(sys.argv[1]))"


@pytest.mark.parametrize(("parent_pid", "code"), [(os.getpid(), 0), (1, 1)], ids=["alive", "ended"])
def test_a_child_ends_at_once_if_its_parent_has_ended(parent_pid: int, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", CHILD, str(parent_pid)], cwd=ROOT).returncode == code


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_killed_parent_takes_its_child_with_it() -> None:
    child = f"{CHILD}; print('tied', flush=True); time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    until_s = time.monotonic() + 10
    while _is_running(pid):
        assert time.monotonic() < until_s, "it is an orphan"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_child_is_ended_before_others() -> None:
    code = (
        "from shared.parent_process import end_before_others; end_before_others(700)\n"
        "print(open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 700


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
