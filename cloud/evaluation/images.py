"""Evaluation of images: blocks of pixels, defect masks, and baselines on encoder features."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.metrics import Labels
from cloud.evaluation.scoring import MethodScores
from cloud.modalities import cloud_modality
from cloud.training.samples.images import read_image, read_mask
from shared.bundle import Bundle
from shared.images import PixelRange
from shared.modalities import load_preprocessor

IMAGES_PER_BLOCK = 16
MAX_BASELINE_IMAGES = 400


def image_blocks(paths: Sequence[Path], pixel_range: PixelRange | None) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield the pixels of image files in blocks; raise DataError for a file that is not an image of the bundle's depth.

    `pixel_range`: for deep images, the range of the bundle.
    """
    for start in range(0, len(paths), IMAGES_PER_BLOCK):
        yield [read_image(path, pixel_range) for path in paths[start : start + IMAGES_PER_BLOCK]]


def read_masks(paths: Sequence[Path | None], labels: Labels) -> list[NDArray[np.bool_] | None] | None:
    """Return the masks of test images, with None for each good image.

    Returns None if a defective image has no mask.
    """
    if any(path is None for path, defective in zip(paths, labels, strict=True) if defective):
        return None
    return [
        read_mask(path) if path is not None and defective else None
        for path, defective in zip(paths, labels, strict=True)
    ]


def at_masks(
    maps: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.bool_] | None]
) -> tuple[Sequence[NDArray[np.float64]], list[NDArray[np.bool_]]]:
    """Return maps and masks, with an empty mask of the first mask's size for each good image."""
    shape = next(mask.shape for mask in masks if mask is not None)
    return maps, [np.zeros(shape, dtype=np.bool_) if mask is None else mask for mask in masks]


def image_baselines(
    bundle: Bundle, normal: Sequence[Path], test: Sequence[Path], *, seed: int = 0
) -> Mapping[str, MethodScores]:
    """Return the scores of the baselines on features of the bundle's encoder.

    The features of an image are the mean and standard deviation over its patches. At most MAX_BASELINE_IMAGES normal
    images are used.
    """
    encoder = cloud_modality(bundle.manifest.modality).load_encoder(bundle)
    if encoder is None:
        return {}
    preprocessor = load_preprocessor(bundle)

    def features(paths: Sequence[Path]) -> NDArray[np.float64]:
        blocks: list[NDArray[np.float64]] = []
        for block in image_blocks(paths, PixelRange.of(preprocessor.spec.pixel_range)):
            vectors = encoder.encode(preprocessor.prepare(block).inputs)
            blocks.append(torch.cat([vectors.mean(dim=1), vectors.std(dim=1)], dim=1).double().numpy())
        return np.concatenate(blocks)

    order = np.random.default_rng(seed).permutation(len(normal))[:MAX_BASELINE_IMAGES]
    scores = baseline_scores(features([normal[index] for index in np.sort(order)]), features(test), seed=seed)
    return {name: MethodScores(values) for name, values in scores.items()}
