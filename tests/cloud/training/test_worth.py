"""Tests of the weights of fusion members on the given images."""

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality


def layouts(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return two-level images (count, 96, 96, 3) of bars with random widths, directions and places."""
    images = np.full((count, 96, 96, 3), 255, dtype=np.uint8)
    for image in images:
        for _ in range(rng.integers(3, 8)):
            start, width = int(rng.integers(0, 80)), int(rng.integers(4, 18))
            if rng.random() < 0.5:
                image[start : start + width] = 0
            else:
                image[:, start : start + width] = 0
    return images


def test_a_method_that_needs_a_common_layout_counts_less_without_one() -> None:
    rng = np.random.default_rng(3)
    train, held_out = layouts(30, rng), layouts(20, rng)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), InputSpec(image_height=96, image_width=96))
    generator = torch.Generator().manual_seed(0)
    encoder, _ = fit_image_encoder(train, generator=generator, dim=16)
    methods = ("knn", "local_corruption")
    options = AnalysisOptions(methods=methods, fused=methods, device="cpu", effort=0.2)
    analysis = fit_analysis(preprocessor, encoder, train, held_out, options).analysis
    of_neighbours, of_corruption = analysis.opinion_weights
    assert of_neighbours + of_corruption == 1.0
    assert of_corruption > of_neighbours
