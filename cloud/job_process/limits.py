"""Limits that a child process sets on itself: it is last in line for cores and memory, and bounded in its own."""

import os
import resource

from shared.parent_process import end_before_others

_LIKELINESS = 800  # of 1000, to be ended when memory is used up


def lower_priority(niceness: int, cores: int) -> None:
    """Compute only where nothing else does, on at most `cores` cores; end before others when memory is used up."""
    end_before_others(_LIKELINESS)
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
