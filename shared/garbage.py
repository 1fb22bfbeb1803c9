"""Pauses of Python's garbage collection, and objects that it skips."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no garbage inside the block, for work that makes many objects and keeps them.

    Imports of large libraries take a quarter longer with collection, which finds nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def skip_loaded_objects() -> None:
    """Keep the garbage collector away from the objects of imported libraries, which are all held to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
