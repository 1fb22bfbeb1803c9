"""Which layers of an INT8 artefact stay in float: the fewest with which it passes the parity gate.

Where the gate refuses an artefact, its layers are ranked by what quantising each alone costs in agreement with FP32,
and the most sensitive are put back to float: one, two, four and so on until the gate passes, then fewer by bisection.
The ranking is made on ONNX Runtime, which makes the graph of a layer in a fraction of a second, and holds for both
engines: how much rounding a layer costs is the layer's.

Not `nncf.quantize_with_accuracy_control`: it takes back one group of quantisers a step, and ranks all the others anew
whenever a step did not help. On solar cells, from a rank correlation of 0.949, it was at 0.970 after 15 steps and 374 s
of CPU time; by the ranking here, made in 48 s, one layer gives 0.969, four 0.980 and eight 0.990.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloud.training.parity import rank_correlation
from cloud.training.quantise import OnnxRuntimeQuantiser
from shared.engines import EngineConfiguration, open_graph, run_graph
from shared.errors import ParityError

Attempted = TypeVar("Attempted")


def rank_layers(
    model: bytes, names: Sequence[str], first: Sequence[str], quantiser: OnnxRuntimeQuantiser, inputs: NDArray[Any]
) -> tuple[str, ...]:
    """The layers `names`, those first whose quantisation costs the most.

    Each is quantised alone, with the others and the `first` in float. Its cost is one minus the rank correlation with
    the FP32 `model` over a few graph inputs (n, ...): of patch scores where the graph has them, since they are many,
    of scores otherwise.
    """
    expected = _opinions(model, inputs)
    costs = {}
    for name in names:
        graph = quantiser.quantise([*first, *(other for other in names if other != name)])
        costs[name] = 1 - rank_correlation(expected, _opinions(graph, inputs))
    return tuple(sorted(names, key=lambda name: -costs[name]))


def fewest_in_float(
    attempt: Callable[[Collection[str]], Attempted], ranking: Callable[[], Sequence[str]]
) -> tuple[Attempted, tuple[str, ...]]:
    """What `attempt` gives with the fewest layers of the ranking in float, and these.

    `attempt` takes the names of the layers in float and raises ParityError where the gate refuses the artefact;
    `ranking` is asked for only if it does so with none of them. As many attempts as twice the logarithm of the number
    of layers. At least one layer stays in INT8; raises ParityError if none of that passes.
    """
    try:
        return attempt(()), ()
    except ParityError as error:
        refused, ranked = error, tuple(ranking())
    failed, count, most = 0, 1, len(ranked) - 1
    while failed < most:
        count = min(count, most)
        try:
            passed = attempt(ranked[:count])
        except ParityError as error:
            refused, failed, count = error, count, 2 * count
            continue
        return _fewer(attempt, ranked, passed, failed, count)
    raise ParityError(f"{refused} (This with all layers but one in float.)" if failed else str(refused))


def _fewer(
    attempt: Callable[[Collection[str]], Attempted], ranked: Sequence[str], passed: Attempted, failed: int, count: int
) -> tuple[Attempted, tuple[str, ...]]:
    """The same as `passed` with `count` layers in float, with as few as pass above the `failed`."""
    while count - failed > 1:
        middle = (failed + count) // 2
        try:
            passed, count = attempt(ranked[:middle]), middle
        except ParityError:
            failed = middle
    return passed, tuple(ranked[:count])


def _opinions(model: bytes, inputs: NDArray[Any]) -> NDArray[np.float64]:
    outputs = run_graph(open_graph("onnxruntime", model, None, EngineConfiguration()), inputs)
    found = outputs.scores if outputs.maps is None else outputs.maps
    return found.astype(np.float64).ravel()
