"""Memory that the C library, where it is glibc, takes more of than a device has to give."""

import contextlib
import ctypes

_M_ARENA_MAX, _ARENAS = -8, 2  # see mallopt(3)


def take_little() -> None:
    """Share few arenas among all threads; by default each gets one, with its own leftovers. Before threads start."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return what is kept of freed memory; loading a bundle leaves tens of MiB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
