"""Worker process that measures a bundle's screener on FP32 PyTorch eager or INT8 ONNX Runtime.

It is started as `python -P -m cloud.evaluation.device.rates`; `rate_worker` describes its protocol. The first line
gives the bundle, its key, and the target: "eager" or the name of an ONNX Runtime artefact.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.child_process import serve_json_lines

Step = Callable[[NDArray[Any]], object]


def main() -> None:
    """Answer requests until standard input ends."""
    settings: dict[str, Any] = {}
    steps: list[Step] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if not steps:
            settings.update(request)
            steps.append(_step(settings))
            return {}
        inputs = _inputs([request["batch_size"], *settings["shape"][1:]])
        return {"samples_per_s": _rate(steps[0], inputs, request["seconds"])}

    serve_json_lines(answer)


def _rate(step: Step, inputs: NDArray[Any], seconds: float) -> float:
    for _ in range(3):
        step(inputs)
    count, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        step(inputs)
        count += len(inputs)
    return count / elapsed_s


def _inputs(shape: list[int]) -> NDArray[Any]:
    random = np.random.default_rng(0)
    if len(shape) == 4:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)


def _step(settings: dict[str, Any]) -> Step:
    from shared.bundle import Bundle
    from shared.signing_keys import load_trusted_key

    bundle = Bundle.open(Path(settings["bundle"]), [load_trusted_key(Path(settings["key"]))])
    cores = len(os.sched_getaffinity(0))
    if settings["target"] == "eager":
        return _eager(bundle, cores)
    from shared.engines import EngineConfiguration, load_engine

    engine = load_engine(bundle, settings["target"], EngineConfiguration())
    return lambda inputs: engine.start(inputs).result()


def _eager(bundle: Any, cores: int) -> Step:
    import torch

    from cloud.evaluation.device.fp32 import fp32_screener

    torch.set_num_threads(cores)
    screener = fp32_screener(bundle)

    def step(inputs: NDArray[Any]) -> object:
        with torch.inference_mode():
            return screener(torch.from_numpy(inputs))

    return step


if __name__ == "__main__":
    main()
