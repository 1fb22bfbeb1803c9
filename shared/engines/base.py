"""What every engine is: it takes a batch, and hands the graph's outputs back when they are asked for."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SCORE, ANOMALY_MAP = "score", "anomaly_map"
DEPTH = 3  # batches: one is routed, one computes, and one waits, so that no core idles in between


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """`scores`: (batch,) float32. `maps`: (batch, h, w) float32 raw patch scores, or None. Both are the caller's."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Pending(Protocol):
    """A batch under way."""

    def result(self) -> GraphOutput:
        """Wait for the batch; raises EngineError if the engine failed on it."""
        ...


class Engine(Protocol):
    """A loaded graph. Used by one thread at a time.

    `depth`: batches that may be under way at once with gain. `input_shape`: the graph's own, -1 where any size goes.
    """

    name: str
    depth: int
    input_shape: tuple[int, ...]

    def start(self, inputs: NDArray[Any]) -> Pending:
        """Start on `inputs` (batch, ...) as the preprocessing made them, which MUST stay unchanged until the result.

        At most `depth` batches MUST be under way. Raises EngineError if the engine refuses the batch.
        """
        ...
