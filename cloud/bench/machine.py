"""Facts of this machine that a measurement depends on."""

import contextlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return cores that this process may use, the load before the run, and versions."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "vedette": version("vedette"),
        "grpc": version("grpcio"),
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its children have used, in seconds."""
    ticks = [sum(map(int, _stat(each)[11:13])) for each in _with_children(pid)]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and its children in MiB; pages that they share count once."""
    return sum(_proportional_kib(each) for each in _with_children(pid)) / 2**10


def _with_children(pid: int) -> list[int]:
    """Return the ids of a process and its running children."""
    found = [pid]
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):  # it has ended
            if entry.name.isdigit() and int(_stat(int(entry.name))[1]) == pid:
                found.append(int(entry.name))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state of the process on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _proportional_kib(pid: int) -> int:
    """Return the resident memory of a process, of shared pages its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
