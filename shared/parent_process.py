"""Ties of this process to its parent: it ends with it, and is ended before others when memory is used up.

On Linux the kernel keeps both promises, even while this process computes. The parent is the thread that started this
process. Other systems only get the check at the start.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent(parent_pid: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends; end at once if that has happened."""
    request_signal(by)
    if os.getppid() != parent_pid:
        os._exit(1)


def request_signal(number: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent ends; safe between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def end_before_others(likeliness: int) -> None:
    """Let the kernel end this process rather than others when memory is used up; 0 to 1000, the most likely one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(likeliness))
