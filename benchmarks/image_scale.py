"""Large images in tiles at their own resolution, or shrunk to one tile: image AUROC on development images.

Images of 1,216 x 1,216 and 1,280 x 1,280 pixels, put together from normal ones (`LARGE_GROUPS` of
`benchmarks/image_tasks.py`): sixteen solar cells, as in a module, and four circuit boards, one of each with a defect
drawn in. No labelled part of a benchmark set is used. `shrunk` is what 640 x 640 pixels, one tile, leave of them.
`seconds` are those of one core for training and judging all of a task's images.
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
    """Image AUROC by group, scale and method."""
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
    def smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([resize(image, SHRUNK_PIXELS, SHRUNK_PIXELS) for image in images])

    masks = task.masks[:, ::2, ::2]
    return dataclasses.replace(
        task, train=smaller(task.train), good=smaller(task.good), defective=smaller(task.defective), masks=masks
    )
