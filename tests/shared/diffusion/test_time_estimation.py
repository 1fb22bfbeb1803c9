"""Diffusion time estimation."""

import math

import numpy as np
import pytest
import torch

from shared.diffusion.distillation import DistillationSettings, Teacher, distill_head, local_teacher
from shared.diffusion.neighbours import nearest_distances
from shared.diffusion.perturbation import perturb
from shared.diffusion.time_estimation import TimeEstimationHead, log_posterior_mean

QUICK = DistillationSettings(steps=300, batch_size=256, perturbed=10_000)


def separation(scores: torch.Tensor) -> float:
    """Return the share of pairs across the two halves of the scores that are in order."""
    first, second = scores.chunk(2)
    return float((first.unsqueeze(1) < second).float().mean())


def test_posterior_mean_is_that_of_the_inverse_gamma() -> None:
    # One normal sample at distance r in d dimensions: integrate the posterior of the noise variance numerically.
    dim, distance = 12, 3.0
    variance = torch.linspace(1e-3, 200.0, 2_000_000, dtype=torch.float64)
    log_likelihood = -dim / 2 * variance.log() - distance**2 / (2 * variance)
    weights = (log_likelihood - log_likelihood.max()).exp()
    mean = float((weights * variance).sum() / weights.sum())
    found = log_posterior_mean(torch.tensor([[distance]], dtype=torch.float64), dim)
    assert float(found) == pytest.approx(0.5 * math.log(mean), abs=1e-3)


def test_estimated_level_is_the_level_of_the_noise_added(generator: torch.Generator) -> None:
    sigma, dim = 0.5, 200
    normal = torch.zeros(1, dim)
    noised = normal + sigma * torch.randn(50, dim, generator=generator)
    estimates = log_posterior_mean(nearest_distances(noised, normal, 1), dim).exp()
    assert float(estimates.mean()) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("dim", [1, 2, 4, 5, 64])
def test_posterior_mean_is_finite_and_rises_with_distance_in_any_dimension(dim: int) -> None:
    distances = torch.tensor([[0.0, 0.0], [0.1, 0.2], [1.0, 2.0], [1e6, 1e6]])
    scores = log_posterior_mean(distances, dim)
    assert torch.isfinite(scores).all()
    assert (scores.diff() > 0).all()


def test_perturbed_vectors_keep_their_origin_and_cover_decades(generator: torch.Generator) -> None:
    normals = torch.randn(200, 6, generator=generator)
    inputs, rows = perturb(normals, 5000, generator)
    moved = (inputs - normals[rows]).norm(dim=1)
    assert 0.2 < (moved == 0).float().mean() < 0.3  # the untouched ones, and those touched in no coordinate
    assert moved[moved > 0].quantile(0.02) < 0.3
    assert moved.quantile(0.98) > 8.0


def test_a_head_learns_what_its_teacher_says(generator: torch.Generator) -> None:
    normals = torch.randn(1000, 6, generator=generator)
    normals[:, 3] = normals[:, 0]  # a rule that normal samples keep
    head = TimeEstimationHead(6, (64, 64))
    shares: list[float] = []
    distill_head(head, normals, settings=QUICK, generator=generator, progress=shares.append)
    fresh = torch.randn(500, 6, generator=generator)
    fresh[:, 3] = fresh[:, 0]
    broken = fresh.clone()
    broken[:, 3] += 2.5
    queries = torch.cat([fresh, broken])
    teacher = log_posterior_mean(nearest_distances(queries, normals, 5), 6)
    with torch.no_grad():
        scores = head(queries)
    assert np.corrcoef(scores.numpy(), teacher.numpy())[0, 1] > 0.8
    assert separation(scores) > separation(teacher) - 0.05
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_head_scores_far_vectors_high_in_every_direction(generator: torch.Generator) -> None:
    normals = torch.randn(1000, 4, generator=generator)
    head = TimeEstimationHead(4, (64, 64))
    distill_head(head, normals, settings=QUICK, generator=generator)
    with torch.no_grad():
        highest = head(normals).max()
        for size in (20.0, 100.0, 5000.0):
            far = torch.cat([size * torch.eye(4), -size * torch.eye(4)])
            scores = head(far)
            assert torch.isfinite(scores).all()
            assert (scores > highest).all()


def test_a_few_more_steps_keep_what_a_head_knows(generator: torch.Generator) -> None:
    normals = torch.randn(800, 4, generator=generator)
    head = TimeEstimationHead(4, (64, 64))
    first = distill_head(head, normals, settings=QUICK, generator=generator)
    local = QUICK.model_copy(update={"steps": 20, "learning_rate": 1e-4})
    assert distill_head(head, normals[:200], settings=local, generator=generator) < 3 * first + 0.05


@pytest.mark.parametrize(
    "normals", [torch.ones(40, 3), torch.zeros(40, 3), torch.cat([torch.zeros(39, 3), torch.full((1, 3), 5e3)])]
)
def test_constant_duplicated_and_huge_data_leave_a_finite_head(
    normals: torch.Tensor, generator: torch.Generator
) -> None:
    head = TimeEstimationHead(3, (16,))
    loss = distill_head(
        head, normals, settings=DistillationSettings(steps=30, perturbed=500, batch_size=64), generator=generator
    )
    assert math.isfinite(loss)
    with torch.no_grad():
        assert torch.isfinite(head(torch.cat([normals, torch.full((1, 3), 5e3)]))).all()


def test_arrays_bring_the_same_head_back(generator: torch.Generator) -> None:
    head = TimeEstimationHead(7, (8, 12, 6))
    arrays = head.to_arrays()
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = TimeEstimationHead.from_arrays(arrays)
    x = torch.randn(5, 7, generator=generator)
    assert torch.equal(head(x), again(x))
    arrays["layers.0.weight"][:] = 0
    assert not torch.equal(head.layers[0].weight, torch.zeros(8, 7))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"layers.2.weight": np.zeros((3, 3))}, {"layers.0.bias": np.zeros(2)}])
def test_arrays_of_another_network_are_refused(change: dict[str, np.ndarray]) -> None:
    arrays = {**TimeEstimationHead(4, (5, 6)).to_arrays(), **change}
    with pytest.raises(ValueError, match="time estimation head"):
        TimeEstimationHead.from_arrays(arrays)
    with pytest.raises(ValueError, match="time estimation head"):
        TimeEstimationHead.from_arrays({})


def test_one_normal_is_too_few(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="at least two"):
        distill_head(TimeEstimationHead(3), torch.zeros(1, 3), settings=QUICK, generator=generator)


def test_a_head_learns_from_any_teacher(generator: torch.Generator) -> None:
    normals = torch.randn(500, 4, generator=generator)
    head = TimeEstimationHead(4, (64, 64))
    distill_head(
        head, normals, settings=QUICK, generator=generator, teacher=lambda inputs, rows: inputs[:, 2].clamp(-3, 3)
    )
    queries = torch.randn(300, 4, generator=generator)
    with torch.no_grad():
        assert np.corrcoef(head(queries).numpy(), queries[:, 2].numpy())[0, 1] > 0.95


def test_a_local_teacher_takes_in_local_normals_and_keeps_what_the_head_knows(generator: torch.Generator) -> None:
    fleet = torch.randn(1000, 4, generator=generator)
    head = TimeEstimationHead(4, (64, 64))
    distill_head(head, fleet, settings=QUICK, generator=generator, teacher=fused_like(fleet))
    here = torch.randn(400, 4, generator=generator)
    here[:, 0] += 4.0  # normal on this device only
    far = 9.0 * torch.nn.functional.normalize(torch.randn(200, 4, generator=generator), dim=1)
    with torch.no_grad():
        before_here, before_far = head(here).mean(), head(far).mean()
    distill_head(head, here, settings=QUICK, generator=generator, teacher=local_teacher(head, here, 5))
    with torch.no_grad():
        assert head(here).mean() < before_here - 0.2
        assert head(far).median() > head(here).quantile(0.95)
        assert abs(head(far).mean() - before_far) < abs(before_far - before_here)


def fused_like(normals: torch.Tensor) -> Teacher:
    """A teacher of another scale than DTE-NP's."""
    return lambda inputs, rows: torch.log1p(nearest_distances(inputs, normals, 5, own_rows=rows).mean(dim=1))


def test_rounds_on_the_same_normals_leave_alone_what_is_far_from_them(generator: torch.Generator) -> None:
    normals = torch.randn(600, 4, generator=generator)
    head = TimeEstimationHead(4, (64, 64))
    distill_head(head, normals, settings=QUICK, generator=generator, teacher=fused_like(normals))
    far = 6.0 * torch.nn.functional.normalize(torch.randn(200, 4, generator=generator), dim=1)
    with torch.no_grad():
        before = head(far).mean() - head(normals).mean()
    for _ in range(5):
        distill_head(head, normals, settings=QUICK, generator=generator, teacher=local_teacher(head, normals, 5))
    with torch.no_grad():
        assert head(far).mean() - head(normals).mean() > 0.9 * before
