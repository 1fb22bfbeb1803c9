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
    """Return what is kept of freed memory, of which loading a bundle leaves tens of MiB, and unmap the code of all
    libraries: what is used again comes back from the system's cache, page by page, and the rest stays out."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        _unmap_code()


def _unmap_code() -> None:
    """Of code in files alone, which is never written: these pages are as the file has them."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, _, *path = line.split(maxsplit=5)
        if access == "r-xp" and path and path[0].startswith("/"):
            first, end = (int(place, 16) for place in span.split("-"))
            madvise(first, end - first, _MADV_DONTNEED)
