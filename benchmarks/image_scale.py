"""Large images tiled at native resolution or shrunk to one tile, compared by image AUROC.

Development images of 1,216 x 1,216 and 1,280 x 1,280 pixels are composed of normal images (`LARGE_GROUPS` of
`benchmarks/image_tasks.py`): sixteen solar cells, as in a module, and four circuit boards. A defective image has a
defect drawn into one of its cells or boards. No labelled part of a benchmark set is used.

* `native`: tiles at native resolution.
* `shrunk`: the images reduced to 640 x 640 pixels, one tile.
* `seconds`: training on and judging all images of a task, on one core.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.image_choices import figures_of
from benchmarks.image_tasks import LARGE_GROUPS, ImageTask, tasks
from shared.images import resize

SHRUNK_PIXELS = 640


def run() -> dict[str, Any]:
    """Return image AUROC by group, scale and method."""
    found: dict[str, Any] = {}
    for group in LARGE_GROUPS:
        for task in tasks(group):
            for scale, scaled in (("shrunk", _shrunk(task)), ("native", task)):
                started_s = time.perf_counter()
                figures = figures_of(scaled)
                found[f"{task.name} {scale}"] = {**figures, "seconds": time.perf_counter() - started_s}
                print(task.name, scale, found[f"{task.name} {scale}"], flush=True)
    return found


def _shrunk(task: ImageTask) -> ImageTask:
    """Return the task with images of SHRUNK_PIXELS x SHRUNK_PIXELS."""

    def smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([resize(image, SHRUNK_PIXELS, SHRUNK_PIXELS) for image in images])

    masks = task.masks[:, ::2, ::2]
    return dataclasses.replace(
        task, train=smaller(task.train), good=smaller(task.good), defective=smaller(task.defective), masks=masks
    )
