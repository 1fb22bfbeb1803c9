"""Images: read a few at a time, their masks, and the baselines on their features."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.metrics import Labels
from cloud.evaluation.scoring import MethodScores
from cloud.modalities import cloud_modality
from cloud.training.samples.images import read_image
from shared.bundle import Bundle
from shared.modalities import load_preprocessor

IMAGES_A_BLOCK = 16
MAX_BASELINE_IMAGES = 400


def image_blocks(paths: Sequence[Path]) -> Iterator[list[NDArray[np.uint8]]]:
    """The pixels of the files, a few images at a time. Raises DataError for a file that is no image."""
    for start in range(0, len(paths), IMAGES_A_BLOCK):
        yield [read_image(path) for path in paths[start : start + IMAGES_A_BLOCK]]


def read_masks(paths: Sequence[Path | None], labels: Labels) -> list[NDArray[np.bool_] | None] | None:
    """The masks of test images, None for a good one; nothing at all unless every defective image has a mask."""
    if any(path is None for path, defective in zip(paths, labels, strict=True) if defective):
        return None
    return [
        np.asarray(read_image(path).max(axis=2) > 0) if path is not None and defective else None
        for path, defective in zip(paths, labels, strict=True)
    ]


def at_masks(
    maps: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_] | None]
) -> tuple[Sequence[NDArray[np.float64]], list[NDArray[np.bool_]]]:
    """Maps with a mask for each: one without defects, of the size of the first mask, for a good image."""
    shape = next(mask.shape for mask in masks if mask is not None)
    return maps, [np.zeros(shape, dtype=np.bool_) if mask is None else mask for mask in masks]


def image_baselines(
    bundle: Bundle, normal: Sequence[Path], test: Sequence[Path], *, seed: int = 0
) -> Mapping[str, MethodScores]:
    """The baselines on the mean and the standard deviation over an image's patches of the bundle's own features."""
    encoder = cloud_modality(bundle.manifest.modality).load_encoder(bundle)
    if encoder is None:
        return {}
    preprocessor = load_preprocessor(bundle)

    def features(paths: Sequence[Path]) -> NDArray[np.float64]:
        found: list[NDArray[np.float64]] = []
        for block in image_blocks(paths):
            vectors = encoder.encode(preprocessor.prepare(block).inputs)
            found.append(torch.cat([vectors.mean(dim=1), vectors.std(dim=1)], dim=1).double().numpy())
        return np.concatenate(found)

    order = np.random.default_rng(seed).permutation(len(normal))[:MAX_BASELINE_IMAGES]
    scores = baseline_scores(features([normal[index] for index in np.sort(order)]), features(test), seed=seed)
    return {name: MethodScores(values) for name, values in scores.items()}
