"""Search for the fewest layers of an INT8 artefact that must stay in float to pass the parity gate.

If the gate refuses an artefact, its layers are ranked by the loss of agreement with FP32 when each is quantised alone.
The most sensitive ones return to float: one, two, four and so on until the gate passes, then fewer by bisection. The
ranking is made on ONNX Runtime, which builds the graph of a layer in a fraction of a second. It holds for both engines,
because the cost of rounding is a property of the layer.

`nncf.quantize_with_accuracy_control` was slower: it reverts one group of quantisers per step, and ranks the others
again after a step without gain. On solar cells, from a rank correlation of 0.949, it reached 0.970 after 15 steps and
374 s of CPU time. The ranking here took 48 s; with it one layer gives 0.969, four 0.980 and eight 0.990.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloud.training.parity import rank_correlation
from cloud.training.quantise import OnnxRuntimeQuantiser
from shared.diffusion.training import Progress
from shared.engines import EngineConfiguration, open_graph, run_graph
from shared.errors import ParityError

Attempted = TypeVar("Attempted")


def rank_layers(
    model: bytes,
    names: Sequence[str],
    first: Sequence[str],
    quantiser: OnnxRuntimeQuantiser,
    inputs: NDArray[Any],
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Return the layers `names`, the most sensitive to quantisation first.

    Each is quantised alone, with the others and the `first` in float. Its cost is one minus the rank correlation with
    the FP32 `model` over a few graph inputs (n, ...): of patch scores where the graph has them, since they are many,
    of scores otherwise. `progress` gets the share that is done.
    """
    expected = _scores(model, inputs)
    costs = {}
    for done, name in enumerate(names, start=1):
        graph = quantiser.quantise([*first, *(other for other in names if other != name)])
        costs[name] = 1 - rank_correlation(expected, _scores(graph, inputs))
        if progress is not None:
            progress(done / len(names))
    return tuple(sorted(names, key=lambda name: -costs[name]))


def fewest_in_float(
    attempt: Callable[[Collection[str]], Attempted], ranking: Callable[[], Sequence[str]]
) -> tuple[Attempted, tuple[str, ...]]:
    """Return the result of `attempt` with the fewest layers in float, and the names of these layers.

    `attempt` takes the names of the layers in float and raises ParityError if the gate refuses the artefact. `ranking`
    is called only if the attempt without any fails. The number of attempts is at most twice the binary logarithm of the
    number of layers. At least one layer stays in INT8. Raises ParityError if no attempt passes.
    """
    try:
        return attempt(()), ()
    except ParityError as error:
        refused, ranked = error, tuple(ranking())
    failed, count, limit = 0, 1, len(ranked) - 1
    while failed < limit:
        count = min(count, limit)
        try:
            passed = attempt(ranked[:count])
        except ParityError as error:
            refused, failed, count = error, count, 2 * count
            continue
        return _fewer(attempt, ranked, passed, failed, count)
    raise ParityError(f"{refused} (All layers but one were in float.)" if failed else str(refused))


def _fewer(
    attempt: Callable[[Collection[str]], Attempted], ranked: Sequence[str], passed: Attempted, failed: int, count: int
) -> tuple[Attempted, tuple[str, ...]]:
    """Return the result with the fewest layers that pass: more than `failed`, at most `count`."""
    while count - failed > 1:
        middle = (failed + count) // 2
        try:
            passed, count = attempt(ranked[:middle]), middle
        except ParityError:
            failed = middle
    return passed, tuple(ranked[:count])


def _scores(model: bytes, inputs: NDArray[Any]) -> NDArray[np.float64]:
    outputs = run_graph(open_graph("onnxruntime", model, None, EngineConfiguration()), inputs)
    found = outputs.scores if outputs.maps is None else outputs.maps
    return found.astype(np.float64).ravel()
