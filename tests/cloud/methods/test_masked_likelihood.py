"""Tests of the masked likelihood against a loop over its masks."""

import pytest
import torch
from torch import Tensor

from cloud.methods import FitContext, VectorFeatures
from cloud.methods.defaults.masked_likelihood import SCORED_SHARES, CellPredictor, MaskedLikelihood
from shared.diffusion.training import OptimizerSettings

DIM = 7


def normal(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("missing", [False, True])
def test_all_masks_in_one_call_equal_a_loop_over_them(missing: bool) -> None:
    analyzer = MaskedLikelihood()
    training = OptimizerSettings(steps=40, batch_size=64)
    analyzer.fit(VectorFeatures(normal(200, 1).unsqueeze(1)), FitContext(seed=1, training=training))
    state = analyzer.state()
    predictor = CellPredictor(*(int(value) for value in state["shape"]))
    predictor.load_state_dict({name[8:]: value for name, value in state.items() if name.startswith("weights.")})
    vectors = normal(150, 2)
    known = torch.rand(vectors.shape, generator=torch.Generator().manual_seed(3)) < 0.8
    known = known if missing else torch.ones_like(known)
    expected = torch.zeros_like(vectors)
    with torch.no_grad():
        for mask in state["masks"]:
            expected += predictor(vectors, known * mask) * (1.0 - mask)
    expected = known * expected / len(SCORED_SHARES)
    output = analyzer.score(VectorFeatures(vectors.unsqueeze(1), known.unsqueeze(1)))
    assert output.surprises is not None
    assert torch.allclose(output.surprises.squeeze(1), expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(output.scores, expected.sum(dim=1) / known.sum(dim=1).clamp(min=1), rtol=1e-4, atol=1e-5)
