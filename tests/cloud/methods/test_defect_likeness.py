"""The member that learns from labelled defects: rows, images, missing values, and its state."""

import torch
from safetensors.torch import load, save

from cloud.methods import FitContext, PatchFeatures, VectorFeatures
from cloud.methods.defaults.defect_likeness import DefectLikeness

DIM = 5


def fitted(features, defects) -> DefectLikeness:
    analyzer = DefectLikeness()
    analyzer.fit(features, FitContext(seed=1, defects=defects))
    return analyzer


def test_samples_like_a_defect_score_above_other_anomalies_and_those_above_normals() -> None:
    generator = torch.Generator().manual_seed(3)
    normals = torch.randn(300, 1, DIM, generator=generator)
    defects = torch.full((4, 1, DIM), 3.0) + 0.1 * torch.randn(4, 1, DIM, generator=generator)
    analyzer = fitted(VectorFeatures(normals), VectorFeatures(defects))
    others = torch.full((5, 1, DIM), -3.0)
    like, unlike, usual = (
        analyzer.score(VectorFeatures(each)).scores for each in (defects + 0.05, others, normals[:50] + 0.01)
    )
    assert like.min() > unlike.max()
    assert unlike.min() > usual.quantile(0.95)
    assert torch.isfinite(analyzer.score(VectorFeatures(torch.cat([defects, normals[:3]]))).scores).all()
    again = DefectLikeness.from_state(load(save(analyzer.state())))
    assert torch.equal(again.score(VectorFeatures(defects)).scores, analyzer.score(VectorFeatures(defects)).scores)
    observed = torch.ones(5, 1, DIM, dtype=torch.bool)
    observed[:, :, 0] = False
    assert torch.isfinite(analyzer.score(VectorFeatures(others, observed)).scores).all()


def test_only_the_farthest_patches_of_a_defective_image_count_as_defects() -> None:
    generator = torch.Generator().manual_seed(5)

    def images(count: int) -> torch.Tensor:
        return torch.randn(count, 400, DIM, generator=generator)

    broken = images(3)
    broken[:, 7:11] = 4.0 + 0.1 * torch.randn(3, 4, DIM, generator=generator)
    analyzer = fitted(PatchFeatures(images(20), grid=(20, 20)), PatchFeatures(broken, grid=(20, 20)))
    assert analyzer.state()["defects"].shape == (3 * 4, DIM)
    assert (analyzer.state()["defects"] > 3).all()
    fresh = images(6)
    fresh[2, 50] = 4.0
    output = analyzer.score(PatchFeatures(fresh, grid=(20, 20)))
    assert output.maps is not None
    assert int(output.maps[2].flatten().argmax()) == 50
    assert int(output.scores.argmax()) == 2
