"""Samples of an endless source, a few at a time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from shared.samples import SampleBatch

MOST_S = 10.0


def take(
    batches: Iterator[SampleBatch], stop: threading.Event, count: int, samples_of: Callable[[SampleBatch], list[Any]]
) -> list[Any]:
    """Return the next `count` samples, which must end their batch; wait for them up to a limit."""
    timer = threading.Timer(MOST_S, stop.set)
    timer.start()
    found: list[Any] = []
    while len(found) < count:
        found += samples_of(next(batches))
    timer.cancel()
    assert len(found) == count
    return found
