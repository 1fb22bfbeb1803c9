"""Limits that a child process sets on itself: it ends with its parent, and is last in line for cores and memory."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_MORE_LIKELY_ENDED = 800  # of 1000: the kernel ends this process first when memory is used up


def end_with_parent(parent_pid: int) -> None:
    """Let the kernel end this process when its parent dies; end at once if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_MORE_LIKELY_ENDED))
    if os.getppid() != parent_pid:
        os._exit(1)


def lower_priority(niceness: int, cores: int) -> None:
    """Compute only where nothing else does, on at most `cores` cores."""
    os.nice(niceness)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-min(cores, len(allowed)) :])


def limit_resources(*, data_bytes: int = 0, cpu_s: int = 0, file_bytes: int = 0) -> None:
    """Bound private memory, processor time and the size of a file that is written; 0: no bound."""
    wanted = {
        resource.RLIMIT_DATA: data_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in wanted.items():
        if limit or kind == resource.RLIMIT_CORE:
            resource.setrlimit(kind, (limit, limit))
