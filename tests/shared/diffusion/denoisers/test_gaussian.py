"""The exact denoiser of Gaussian data."""

import torch
from torch import Tensor, nn

from shared.diffusion.neighbours import nearest_distances
from shared.diffusion.schedules import diffuse, geometric_sigmas
from shared.diffusion.time_estimation import log_posterior_mean
from shared.diffusion.training import OptimizerSettings, train
from tests.shared.diffusion.gaussian import GaussianDenoiser, time_posterior


def isotropic(dim: int, deviation: float) -> GaussianDenoiser:
    return GaussianDenoiser(torch.zeros(dim), deviation**2 * torch.eye(dim))


def test_gaussian_denoiser_is_the_posterior_mean(mean: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
    sigma = 0.7
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(3, dtype=torch.float64))
    expected = mean + (x - mean) @ gain.T
    assert torch.allclose(GaussianDenoiser(mean, covariance)(x, torch.full((4, 1), sigma)), expected)


def test_likelihoods_are_those_of_the_noised_data(mean: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
    x = 3 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    sigmas = torch.linspace(0.1, 4.0, 5, dtype=torch.float64)
    found = GaussianDenoiser(mean, covariance).log_likelihoods(x, sigmas)
    for sigma, log_densities in zip(sigmas, found.T, strict=True):
        noised = covariance + sigma**2 * torch.eye(3, dtype=torch.float64)
        assert torch.allclose(log_densities, torch.distributions.MultivariateNormal(mean, noised).log_prob(x))


def test_time_posterior_is_bayes_rule_with_the_prior_given(mean: Tensor, covariance: Tensor) -> None:
    x, sigmas = mean + torch.tensor([[2.0, -1.0, 3.0]], dtype=torch.float64), geometric_sigmas(6, 0.1, 10.0)
    log_prior = torch.linspace(-2.0, 1.0, 6, dtype=torch.float64)
    data = GaussianDenoiser(mean, covariance)
    joint = data.log_likelihoods(x, sigmas).exp() * log_prior.exp()
    assert torch.allclose(time_posterior(data, x, sigmas, log_prior), joint / joint.sum())


def test_time_posteriors_average_to_the_prior(mean: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
    sigmas = geometric_sigmas(5, 0.1, 10.0)
    x0 = torch.distributions.MultivariateNormal(mean, covariance).sample((20_000,))
    sigma = sigmas[torch.randint(5, (20_000,), generator=generator)]
    x = diffuse(x0, sigma, torch.randn(20_000, 3, generator=generator, dtype=torch.float64))
    posterior = time_posterior(GaussianDenoiser(mean, covariance), x, sigmas)
    assert torch.allclose(posterior.mean(0), torch.full((5,), 0.2, dtype=torch.float64), atol=0.01)
    assert posterior.max(dim=1).values.mean() > 0.5  # the posterior is not flat


def test_posterior_of_a_single_normal_sample_is_the_published_one() -> None:
    # DTE-NP's inverse gamma assumes a uniform prior of the noise variance and normal data at one point.
    dim = 12
    x = torch.cat([torch.full((1, dim), 0.4), torch.full((1, dim), 1.5)])
    variances = torch.linspace(1e-2, 400.0, 40_000)
    posterior = time_posterior(isotropic(dim, 1e-3), x, variances.sqrt())
    exact = 0.5 * (posterior @ variances).log()
    assert torch.allclose(log_posterior_mean(x.norm(dim=1, keepdim=True), dim), exact, atol=0.01)


def test_posterior_from_neighbours_comes_near_the_exact_one(generator: torch.Generator) -> None:
    dim, deviation = 32, 0.1
    normals = deviation * torch.randn(2000, dim, generator=generator)
    sigma = torch.tensor([0.5, 1.0, 2.0]).repeat_interleave(50)
    x = diffuse(
        deviation * torch.randn(150, dim, generator=generator), sigma, torch.randn(150, dim, generator=generator)
    )
    variances = torch.linspace(1e-3, 20.0, 2000)
    exact = 0.5 * (time_posterior(isotropic(dim, deviation), x, variances.sqrt()) @ variances).log()
    estimate = log_posterior_mean(nearest_distances(x, normals, 5), dim)
    assert (estimate - exact).abs().max() < 0.2  # of levels that span 1.4 in this unit
    assert torch.corrcoef(torch.stack([estimate, exact]))[0, 1] > 0.99


def test_a_classifier_of_the_noise_level_learns_the_exact_posterior(generator: torch.Generator) -> None:
    dim, levels = 4, 6
    sigmas = geometric_sigmas(levels, 0.2, 5.0).float()
    classifier = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, levels))

    def draw(count: int) -> tuple[Tensor, Tensor]:
        level = torch.randint(levels, (count,), generator=generator)
        x0, noise = torch.randn(2, count, dim, generator=generator)
        return diffuse(0.5 * x0, sigmas[level], noise), level

    def loss() -> Tensor:
        x, level = draw(256)
        return nn.functional.cross_entropy(classifier(x), level)

    train(classifier, loss, OptimizerSettings(steps=250, learning_rate=5e-3))
    x, _ = draw(2000)
    exact = time_posterior(isotropic(dim, 0.5), x, sigmas)
    with torch.no_grad():
        learned = torch.log_softmax(classifier(x), dim=1)
    divergence = nn.functional.kl_div(learned, exact, reduction="batchmean")
    information = torch.special.xlogy(exact, exact * levels).sum(dim=1).mean()  # error of the prior alone
    assert divergence < 0.1 * information


def test_windows_and_images_are_vectors_of_as_many_values(
    mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    denoiser, x = GaussianDenoiser(mean, covariance), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.1, 2.0, 4, dtype=torch.float64).unsqueeze(1)
    expected = denoiser(x, sigma)
    for shape in ((4, 3, 1), (4, 1, 3, 1)):
        found = denoiser(x.reshape(shape), sigma.reshape(4, *[1] * (len(shape) - 1)))
        assert found.shape == shape
        assert torch.allclose(found.flatten(1), expected)
