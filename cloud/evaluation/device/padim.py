"""Worker process that measures anomalib's PaDiM on OpenVINO; `rate_worker` describes its protocol.

It runs in the Python of the peer's environment, which lacks Vedette. The first line gives the size of the images. The
model is anomalib's, with its default backbone and layers, fitted on random images and exported to ONNX. No pretrained
weights are downloaded, because speed does not depend on them. OpenVINO chooses the precision, and its throughput hint
keeps the request queue full.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FITTED_IMAGES = 16


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(sys.stdin.readline())
    compiled = _compiled(settings["height"], settings["width"])
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        shape = (request["batch_size"], 3, settings["height"], settings["width"])
        answers.write(json.dumps({"samples_per_s": _rate(compiled, shape, request["seconds"])}) + "\n")
        answers.flush()


def _compiled(height: int, width: int) -> Any:
    import openvino
    import torch
    from anomalib.models.image.padim.torch_model import PadimModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = PadimModel(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False).train()
    images = torch.rand(FITTED_IMAGES, 3, height, width)
    with torch.no_grad():
        for image in images:
            model(image[None])
        model.fit()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "padim.onnx"
            axes = {"input": {0: "batch"}}
            torch.onnx.export(
                model.eval(), (images[:1],), str(path), input_names=["input"], dynamic_axes=axes, dynamo=False
            )
            core = openvino.Core()
            return core.compile_model(core.read_model(path), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})


def _rate(compiled: Any, shape: tuple[int, ...], seconds: float) -> float:
    import numpy as np
    import openvino

    inputs = np.random.default_rng(0).random(shape, dtype=np.float32)
    queue = openvino.AsyncInferQueue(compiled)
    for _ in range(len(queue)):
        queue.start_async({0: inputs}, share_inputs=True)
    queue.wait_all()
    count, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        queue.start_async({0: inputs}, share_inputs=True)
        count += shape[0]
    queue.wait_all()
    return count / (time.perf_counter() - started_s)


if __name__ == "__main__":
    main()
