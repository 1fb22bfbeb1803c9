"""Conditional Gaussian of windows: imputation, surprises, limits."""

import numpy as np
import pytest

from shared.preprocessing.conditional_gaussian import MAX_GROUPS, ConditionalGaussian

LENGTH, CHANNELS = 4, 3
VALUES = LENGTH * CHANNELS


def normal_windows(count: int, seed: int) -> np.ndarray:
    """Return windows (count, LENGTH, CHANNELS) of one normal distribution, the same for every seed."""
    mixing = np.random.default_rng(99).normal(size=(VALUES, VALUES)) / 3
    rows = np.random.default_rng(seed).normal(size=(count, VALUES)) @ mixing + 0.5
    return rows.reshape(count, LENGTH, CHANNELS)


@pytest.fixture(scope="module")
def fitted() -> ConditionalGaussian:
    return ConditionalGaussian.fit(normal_windows(5000, 1))


def conditional(fitted: ConditionalGaussian, row: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the hidden values given the others, from the covariance matrix."""
    covariance = np.linalg.inv(fitted.precision)
    gain = covariance[np.ix_(hidden, ~hidden)] @ np.linalg.inv(covariance[np.ix_(~hidden, ~hidden)])
    centre = fitted.centre.ravel()
    mean = centre[hidden] + gain @ (row[~hidden] - centre[~hidden])
    return mean, covariance[np.ix_(hidden, hidden)] - gain @ covariance[np.ix_(~hidden, hidden)]


def test_missing_values_are_imputed_with_their_conditional_mean(fitted: ConditionalGaussian) -> None:
    given = normal_windows(20, 2)
    observed = np.random.default_rng(3).random(given.shape) > 0.4
    observed[0], observed[1] = True, False
    imputed = fitted.impute(np.where(observed, given, 1e6), observed)
    np.testing.assert_array_equal(imputed[0], given[0])
    np.testing.assert_allclose(imputed[1], fitted.centre)
    for window, seen, result in zip(given[2:], observed[2:], imputed[2:], strict=True):
        mean, _ = conditional(fitted, window.ravel(), ~seen.ravel())
        np.testing.assert_allclose(result.ravel()[~seen.ravel()], mean, atol=1e-4)
        np.testing.assert_allclose(result[seen], window[seen])


def test_surprises_and_residuals_are_those_of_the_conditional_distribution(fitted: ConditionalGaussian) -> None:
    window = normal_windows(1, 4)
    hidden = (np.arange(VALUES) % CHANNELS) == 1
    mean, covariance = conditional(fitted, window.ravel(), hidden)
    error = window.ravel()[hidden] - mean
    square = error @ np.linalg.solve(covariance, error) / LENGTH
    assert fitted.surprises(window)[0, 1] == pytest.approx(np.log1p(3 * square / fitted.limits[1]), rel=1e-3)
    np.testing.assert_allclose(fitted.residuals(window)[0, :, 1], error / np.sqrt(np.diag(covariance)), atol=1e-3)


def test_a_tenth_of_fresh_normal_windows_lies_beyond_a_limit(fitted: ConditionalGaussian) -> None:
    beyond = fitted.surprises(normal_windows(5000, 5)) > np.log(4.0)
    assert beyond.mean(axis=0) == pytest.approx(np.full(CHANNELS, 0.1), abs=0.02)


def test_limits_of_few_windows_generalise() -> None:
    few = ConditionalGaussian.fit(normal_windows(24, 6))
    beyond = few.surprises(normal_windows(2000, 7)) > np.log(4.0)
    assert beyond.mean() < 0.3


def test_values_that_were_not_observed_change_nothing(fitted: ConditionalGaussian) -> None:
    given = normal_windows(30, 8)
    observed = np.random.default_rng(9).random(given.shape) > 0.5
    one = fitted.impute(given, observed)
    other = fitted.impute(np.where(observed, given, -7.0), observed)
    np.testing.assert_array_equal(fitted.surprises(one, observed), fitted.surprises(other, observed))
    assert (fitted.surprises(one, np.zeros_like(observed)) == 0).all()


def test_many_channels_are_hidden_together() -> None:
    channels = 2 * MAX_GROUPS + 5
    windows = np.random.default_rng(10).normal(size=(60, 2, channels))
    fitted = ConditionalGaussian.fit(windows)
    assert fitted.groups == -(-channels // 3)
    assert fitted.surprises(windows).shape == (60, fitted.groups)
    assert fitted.residuals(windows).shape == windows.shape
    spiked = windows.copy()
    spiked[:, :, 200] += 6.0
    assert (np.abs(fitted.residuals(spiked)).mean(axis=(0, 1)).argmax()) == 200


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_handful_of_constant_windows_gives_finite_surprises(count: int) -> None:
    fitted = ConditionalGaussian.fit(np.zeros((count, LENGTH, CHANNELS)))
    assert np.isfinite(fitted.surprises(np.full((1, LENGTH, CHANNELS), 5e3))).all()


def test_a_stored_distribution_judges_alike(fitted: ConditionalGaussian) -> None:
    given = normal_windows(10, 11)
    arrays = fitted.to_arrays()
    np.testing.assert_array_equal(ConditionalGaussian.from_arrays(arrays).surprises(given), fitted.surprises(given))
    with pytest.raises(ValueError, match="precision"):
        ConditionalGaussian.from_arrays({**arrays, "precision": np.eye(3)})
    with pytest.raises(ValueError, match="limit"):
        ConditionalGaussian.from_arrays({**arrays, "limits": np.ones(2)})


@pytest.mark.parametrize("missing_share", [0.5, 0.9])
def test_a_channel_that_is_seldom_measured_is_not_odd_when_it_is(missing_share: float) -> None:
    rng = np.random.default_rng(4)
    windows, fresh = rng.normal(size=(3000, 6, 5)), rng.normal(size=(1000, 6, 5))
    observed = np.ones(windows.shape, dtype=np.bool_)
    observed[rng.random(3000) < missing_share, :, 4] = False
    fitted = ConditionalGaussian.fit(windows, observed)
    surprises = fitted.surprises(fresh)
    assert surprises[:, 4].mean() < 1.5 * surprises[:, :4].mean()
    assert (np.diag(fitted.precision).reshape(6, 5)[:, 4] < 2.0).all()  # independent values of variance 1
