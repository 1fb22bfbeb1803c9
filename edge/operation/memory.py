"""Memory that a device has better uses for: what glibc keeps of freed memory, and code that only the start ran."""

import contextlib
import ctypes
from pathlib import Path

_M_ARENA_MAX, _ARENAS = -8, 2  # see mallopt(3)
_MADV_DONTNEED = 4  # see madvise(2)


def take_little() -> None:
    """Share few arenas among all threads; by default each gets one, with its own leftovers. Before threads start."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return what is kept of freed memory, of which loading a bundle leaves tens of MiB, and drop the pages of library
    code from this process: what runs again comes back from the system's cache, page by page, and the rest stays out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        _drop_code()


def _drop_code() -> None:
    """Of mappings of files that this process runs and has never written to: their pages are as the file has them."""
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
