"""Memory use of the process: freed memory that glibc keeps, and pages of library code."""

import contextlib
import ctypes
from pathlib import Path

_M_ARENA_MAX, _ARENAS = -8, 2  # see mallopt(3)
_MADV_DONTNEED = 4  # see madvise(2)


def limit_arenas() -> None:
    """Limit glibc to a few memory arenas for all threads. Call it before threads start."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def release_memory() -> None:
    """Return freed memory to the system, and drop pages of library code from this process.

    Loading a bundle leaves tens of MiB of freed memory. Code that runs again is loaded from the system's page cache.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        _drop_code()


def _drop_code() -> None:
    """Drop the pages of executable file mappings that this process has not written to."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    span = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *values = line.split(maxsplit=5)
        if not name.endswith(":"):
            is_code = len(values) == 5 and values[0] == "r-xp" and values[4].startswith("/")
            span = name if is_code and not values[4].startswith(("/dev/", "/memfd:")) else ""
        elif name == "Anonymous:" and span and values[0] == "0":
            first, end = (int(place, 16) for place in span.split("-"))
            madvise(first, end - first, _MADV_DONTNEED)
