"""Start and end of a child process for one job."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

EXIT_S = 5.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def start_child(
    module: str,
    arguments: Sequence[str],
    *,
    output: IO[bytes],
    pass_fds: Sequence[int] = (),
    cores: int = 1,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """Start a module of `cloud.job_process` in a group of its own. Raises OSError.

    Call it in the main thread, whose end the kernel reports to the child.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"cloud.job_process.{module}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(pass_fds),
        env={**environment, **dict.fromkeys(_THREADS, str(cores))},
        process_group=0,
    )


def kill_child(process: subprocess.Popen[bytes]) -> int:
    """Kill a child and its own children, and return its exit code. Blocking."""
    if process.poll() is None:  # else its id may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait(EXIT_S)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process occupies; 0 where that is unknown or the process has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
