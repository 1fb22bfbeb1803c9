"""Protocol of an engine, which starts on a batch and returns the outputs of the graph later."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SCORE, ANOMALY_MAP = "score", "anomaly_map"
DEPTH = 3  # batches: one in the router, one in the engine, one waiting, so that no core is idle


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """Outputs of a graph for a batch; the arrays belong to the caller.

    Attributes:
        scores: (batch,) float32.
        maps: (batch, h, w) float32 raw patch scores, or None.
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Pending(Protocol):
    """Batch in progress."""

    def result(self) -> GraphOutput:
        """Wait for the batch and return its outputs; raise EngineError if the engine failed."""
        ...


class Engine(Protocol):
    """Graph loaded by an engine, for use by one thread at a time.

    Attributes:
        name: Name of the engine.
        depth: Largest number of batches in progress at once.
        input_shape: Shape of the graph's input, with -1 for a dimension of any size.
    """

    name: str
    depth: int
    input_shape: tuple[int, ...]

    def start(self, inputs: NDArray[Any]) -> Pending:
        """Start on a batch.

        Args:
            inputs: (batch, ...) as the preprocessing made them. They MUST stay unchanged until the result. At most
                `depth` batches MUST be in progress.

        Raises:
            EngineError: The engine refuses the batch.
        """
        ...
