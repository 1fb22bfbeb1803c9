"""Tests of the weights of fusion members on the given images and rows."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cloud.methods import ANALYZERS
from cloud.serving.encoding import Samples
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from cloud.training.modalities import training_modality
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from tests.cloud.methods.test_new_analyzer import LargestValue


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


def related_rows(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return rows (count, 3) of two nearly equal features and an operating mode."""
    first = rng.standard_normal(count)
    return np.stack([first, first + 0.1 * rng.standard_normal(count), rng.integers(0, 2, count)], axis=1)


def test_a_method_that_sees_no_relations_between_features_has_little_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANALYZERS, LargestValue.name, LargestValue)
    rng = np.random.default_rng(0)
    train, held_out = related_rows(300, rng)[:, :2], related_rows(200, rng)[:, :2]
    preprocessor = fit_preprocessor(Modality.TABULAR, train, InputSpec(channels=("a", "b")))
    options = AnalysisOptions(methods=("knn", LargestValue.name), device="cpu")
    weights = fit_analysis(preprocessor, None, train, held_out, options).analysis.fusion.weights
    assert weights[LargestValue.name] < 0.2
    assert sum(weights.values()) == pytest.approx(1.0)


def test_copies_of_rows_take_single_values_and_gaps_from_other_rows_and_keep_the_mode() -> None:
    rng = np.random.default_rng(0)
    rows = related_rows(200, rng)
    rows[:40, 1] = np.nan
    spec = InputSpec(channels=("a", "b", "mode"), missing=True, mode_channel="mode", modes=(0.0, 1.0))
    held_out = Samples.prepare(fit_preprocessor(Modality.TABULAR, rows, spec), rows)
    copies = training_modality(Modality.TABULAR).weighing_copies(None, held_out, seed=0)
    assert copies is not None
    seen = [set(map(tuple, held_out.inputs[:, columns].tolist())) for columns in ([0, 2], [1, 3], [4, 5])]
    for columns, known in zip(([0, 2], [1, 3], [4, 5]), seen, strict=True):
        assert set(map(tuple, copies.inputs[:, columns].tolist())) <= known
    gaps = copies.inputs[:, 3] == 0
    assert 0.1 < gaps.mean() < 0.3
    differences = np.abs(copies.inputs[:, 0] - copies.inputs[:, 1])[~gaps]
    assert np.median(differences) > 3.0 * np.median(np.abs(held_out.inputs[40:, 0] - held_out.inputs[40:, 1]))
    assert training_modality(Modality.TABULAR).weighing_copies(None, held_out.at(slice(0, 1)), seed=0) is None
