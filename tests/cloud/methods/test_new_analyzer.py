"""Test that a new analyzer needs only a class and a line in the registry."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from torch import Tensor

from cloud.methods import ANALYZERS, Analyzer, AnalyzerOutput, Features, FitContext, load_analyzer
from cloud.methods.base import cpu_state, from_patch_scores
from cloud.training.analysis import AnalysisOptions, fit_analysis
from shared.bundle import InputSpec
from shared.diffusion.training import Progress
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.samples import Verdict


class LargestValue(Analyzer):
    """Analyzer by the largest absolute value of a vector, relative to its mean on normal data."""

    name: ClassVar[str] = "largest_value"
    is_quick: ClassVar[bool] = True

    def __init__(self, size: Tensor | None = None) -> None:
        self._size = torch.ones(1) if size is None else size

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        self._size = features.flat.abs().mean().reshape(1)

    def score(self, features: Features) -> AnalyzerOutput:
        return from_patch_scores(features.flat.abs().amax(dim=1) / self._size, features)

    def state(self) -> dict[str, Tensor]:
        return cpu_state({"size": self._size})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        return cls(state["size"])

    def to(self, device: torch.device) -> Self:
        self._size = self._size.to(device)
        return self


def test_a_registered_analyzer_is_trained_stored_served_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANALYZERS, LargestValue.name, LargestValue)
    rng = np.random.default_rng(0)
    train, held_out = rng.standard_normal((100, 4)), rng.standard_normal((60, 4))
    preprocessor = fit_preprocessor(Modality.TABULAR, train, InputSpec(channels=tuple("abcd")))
    options = AnalysisOptions(methods=("knn", LargestValue.name), device="cpu")
    fitted = fit_analysis(preprocessor, None, train, held_out, options)
    assert f"cloud/analyzers/{LargestValue.name}.safetensors" in fitted.analysis.files()

    verdict, normal = fitted.analysis.judge([np.array([0.0, 0.0, 9.0, 0.0]), np.zeros(4)])
    assert isinstance(verdict, Verdict)
    assert isinstance(normal, Verdict)
    opinions = {opinion.analyzer: opinion for opinion in verdict.opinions}
    assert set(opinions) == {"knn", LargestValue.name}
    assert opinions[LargestValue.name].p_value < 0.05
    assert verdict.p_value < normal.p_value

    state = fitted.analysis.analyzers[LargestValue.name].state()
    assert isinstance(load_analyzer(LargestValue.name, state), LargestValue)
