"""Start and end of a child process for one job."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

EXIT_S = 5.0
# Allow-list of the environment: settings of the service, which may be secret, never reach a child.
_NAMES = (
    *("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
_STORE_NAMES = ("SQLITE_TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_STORE_PREFIXES = ("AWS_", "PG")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def start_child(
    module: str,
    arguments: Sequence[str],
    *,
    output: IO[bytes],
    pass_fds: Sequence[int] = (),
    cores: int = 1,
    opens_store: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a module of `cloud.job_process` in a group of its own, with `child_environment`. Raises OSError.

    Call it in the main thread, whose end the kernel reports to the child.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"cloud.job_process.{module}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(pass_fds),
        env={**child_environment(os.environ, opens_store=opens_store), **dict.fromkeys(_THREADS, str(cores))},
        process_group=0,
    )


def child_environment(environment: Mapping[str, str], *, opens_store: bool) -> dict[str, str]:
    """Return the variables that a child may have; `opens_store`: also the access to S3 and PostgreSQL."""

    def is_allowed(name: str) -> bool:
        if name in _NAMES:
            return True
        return opens_store and (name.upper() in _STORE_NAMES or name.startswith(_STORE_PREFIXES))

    return {name: value for name, value in environment.items() if is_allowed(name)}


async def end_child(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and its own children at once, and wait at most EXIT_S for its end, in a thread."""
    if process.poll() is not None:  # its id may be another's by now
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(process.wait, EXIT_S)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process occupies; 0 where that is unknown or the process has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
