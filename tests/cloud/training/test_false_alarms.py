"""Tests of p-values on real data: uniform on fresh normals, with the configured rate of false alarms."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta, betabinom

from cloud.evaluation.scoring import BundleScorer
from cloud.methods import ANALYZERS, FitContext, VectorFeatures
from cloud.methods.fusion import Fusion
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.teachers import fused_teacher
from edge.routing.budget import UploadBudget
from edge.routing.router import RateMeter, Router
from edge.settings import RouterSettings
from shared.bundle import InputSpec
from shared.calibration_modes import CalibrationByMode
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.engines import EngineConfiguration, load_engine, run_graph
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from tests.cloud.training.conftest import Trained, train

REAL = (
    Path(os.environ.get("VEDETTE_BENCH_DATA") or Path(__file__).parents[4] / "shared" / "data")
    / "adbench"
    / "Classical"
)
REAL_SETS = ("19_landsat", "41_Waveform", "27_PageBlocks", "2_annthyroid")
METHODS = ("knn", "pca")
CONFIDENCE = 0.999
Floats = NDArray[np.float64]


def digits() -> tuple[Floats, NDArray[np.int64]]:
    """Return handwritten digits, all normal, and the digit of each row."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.data, data.target


def scores_of(rows: Floats, train_rows: int) -> dict[str, Floats]:
    """Fit the analyzers on the first `train_rows` rows and return the scores of the others."""
    torch.set_num_threads(1)
    spec = InputSpec(channels=tuple(f"x{index}" for index in range(rows.shape[1])))
    preprocessor = fit_preprocessor(Modality.TABULAR, rows[:train_rows], spec)
    inputs = torch.from_numpy(preprocessor.prepare(rows).inputs).unsqueeze(1)
    found = {}
    for name in METHODS:
        analyzer = ANALYZERS[name]()
        analyzer.fit(VectorFeatures(inputs[:train_rows]), FitContext(seed=0))
        found[name] = analyzer.score(VectorFeatures(inputs[train_rows:])).scores.double().numpy()
    return found


def interval(count: int, total: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval (Biometrika 1934) of the rate for `count` events in `total`."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 1, total - count))
    return low, high


def likely_counts(rate: float, calibrated_on: int, total: int) -> tuple[float, float]:
    """Return the bounds of the false alarms among `total` fresh normals with probability CONFIDENCE.

    The calibration set is itself a sample, so the count is beta-binomial (Vovk, "Conditional validity of inductive
    conformal predictors", 2012, section 2).
    """
    ranks = int(rate * (calibrated_on + 1) + 1e-9)
    law = betabinom(total, ranks, calibrated_on + 1 - ranks)
    return float(law.ppf((1 - CONFIDENCE) / 2)), float(law.ppf((1 + CONFIDENCE) / 2))


def farthest_from_uniform(p: Floats, steps: int) -> float:
    """Return the largest distance of the distribution of p (n,) from the uniform one on multiples of 1 / steps."""
    levels = np.arange(1, steps + 1) / steps
    shares = np.searchsorted(np.sort(p), levels + 1e-9, side="right") / len(p)
    return float(np.abs(shares - levels).max())


@pytest.fixture(scope="module")
def digit_scores() -> tuple[dict[str, Floats], NDArray[np.int64]]:
    rows, kinds = digits()
    order = np.random.default_rng(0).permutation(len(rows))
    return scores_of(rows[order], 600), np.digitize(kinds[order][600:], [4, 7])


@pytest.mark.parametrize("by_mode", [False, True])
@pytest.mark.parametrize("method", [*METHODS, "fused"])
def test_p_values_of_fresh_normals_are_uniform_over_many_splits(
    digit_scores: tuple[dict[str, Floats], NDArray[np.int64]], method: str, by_mode: bool
) -> None:
    """Compare with the bound of Dvoretzky, Kiefer & Wolfowitz with Massart's constant (1990).

    One fresh sample per split makes the splits independent, so the bound holds for the share of p-values at or below
    all levels at once.
    """
    scores, kinds = digit_scores
    rng = np.random.default_rng(1)
    splits, size = 1500, 100
    found = np.empty(splits)
    for split in range(splits):
        mode = split % 3
        pool = rng.permutation(np.flatnonzero(kinds == mode) if by_mode else len(kinds))
        chosen, fresh = pool[:size], pool[size : size + 1]
        if by_mode:  # add another mode with other scores
            chosen = np.concatenate([chosen, rng.permutation(np.flatnonzero(kinds == (mode + 1) % 3))[:60]])
        found[split] = one_p_value(scores, kinds if by_mode else None, method, chosen, fresh)
    steps = (size // 2 if method == "fused" else size) + 1
    bound = np.sqrt(np.log(2 / (1 - CONFIDENCE)) / (2 * splits))
    assert farthest_from_uniform(found, steps) < bound
    for ranks in (1, 3, 10):
        low, high = interval(int((found <= ranks / steps + 1e-9).sum()), splits)
        assert low <= ranks / steps <= high


def one_p_value(
    scores: Mapping[str, Floats],
    modes: NDArray[np.int64] | None,
    method: str,
    chosen: NDArray[np.intp],
    fresh: NDArray[np.intp],
) -> float:
    def of(rows: NDArray[np.intp]) -> NDArray[np.int64] | None:
        return None if modes is None else modes[rows]

    if method != "fused":
        calibration = CalibrationByMode.fit(scores[method][chosen], of(chosen))
        return float(calibration.p_values(scores[method][fresh], of(fresh)).values[0])
    fusion = Fusion.fit({name: values[chosen] for name, values in scores.items()}, of(chosen))
    statistic = fusion.statistic({name: values[fresh] for name, values in scores.items()}, of(fresh))
    return float(fusion.p_values(statistic, of(fresh)).values[0])


def test_calibration_on_training_scores_raises_false_alarms(
    digit_scores: tuple[dict[str, Floats], NDArray[np.int64]],
) -> None:
    """Check that calibration on shorter distances, like those of training rows, gives normals small p-values."""
    scores = digit_scores[0]["knn"]
    calibration = CalibrationByMode.fit(scores[:400] * 0.8)
    assert (calibration.p_values(scores[400:]).values <= 0.05).mean() > 0.1


@pytest.fixture(scope="module")
def trained_on_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Floats]:
    rows, _ = digits()
    rows = rows[np.random.default_rng(2).permutation(len(rows))]
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, X=rows[:1100])
    return train(path, Modality.TABULAR, data={"held_out_share": 0.5}, analyzers=METHODS), rows[1100:]


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_realised_false_alarms_match_the_configured_rate(
    trained_on_digits: tuple[Trained, Floats], rate: float
) -> None:
    trained, fresh = trained_on_digits
    scored = BundleScorer(trained.bundle, "cpu").score([fresh])
    assert {"fused", "screener_fp32", "screener_int8_openvino", "screener_int8_onnxruntime"} <= set(scored.methods)
    for name, method in scored.methods.items():
        assert method.p_values is not None
        calibrated_on = trained.bundle.manifest.training["held_out_samples"] // (2 if name == "fused" else 1)
        low, high = likely_counts(rate, calibrated_on, len(fresh))
        assert low <= (method.p_values <= rate).sum() <= high, name


def test_alarms_per_day_are_the_samples_beyond_the_threshold(trained_on_digits: tuple[Trained, Floats]) -> None:
    """Check that the router's level, the threshold and the alarms agree for a day of 697 samples with 30 alarms."""
    trained, fresh = trained_on_digits
    artefact = trained.bundle.manifest.artefact("int8_onnxruntime")
    calibration = CalibrationByMode.from_arrays(trained.bundle.arrays(artefact.calibration))
    inputs = fit_inputs(trained, fresh)
    scores = run_graph(load_engine(trained.bundle, artefact.name, EngineConfiguration()), inputs).scores.astype(
        np.float64
    )
    per_day, rate_per_s = 30.0, len(fresh) / 86_400
    settings = RouterSettings(false_alarms_per_day=per_day)
    router = Router(settings, "s", RateMeter(rate_per_s), UploadBudget(settings))
    level = router.alarm_p_value(rate_per_s)
    alarms = calibration.p_values(scores).values <= level
    np.testing.assert_array_equal(alarms, scores >= calibration.threshold(level))
    low, high = likely_counts(level, len(calibration.rest.scores), len(fresh)) if calibration.rest else (0, 0)
    assert low <= alarms.sum() <= high


def fit_inputs(trained: Trained, rows: Floats) -> NDArray[np.float32]:
    from shared.modalities import load_preprocessor

    inputs: NDArray[np.float32] = load_preprocessor(trained.bundle).prepare(rows).inputs
    return inputs


def test_the_screener_keeps_its_false_alarm_rate_over_many_splits() -> None:
    """Check that the head's teacher is not fitted on the samples that calibrate the head."""
    torch.set_num_threads(1)
    rate, alarms, fresh_rows = 0.1, 0, 0
    settings = DistillationSettings(steps=300, batch_size=128, perturbed=4000)
    for seed in range(6):
        rows = np.random.default_rng(seed).standard_normal((1200, 12))
        train_rows, held_out, fresh = rows[:120], rows[120:200], rows[200:]
        spec = InputSpec(channels=tuple(f"x{index}" for index in range(12)))
        preprocessor = fit_preprocessor(Modality.TABULAR, train_rows, spec)
        generator = torch.Generator().manual_seed(seed)
        options = AnalysisOptions(methods=("knn",), seed=seed)
        fitted = fit_analysis(preprocessor, None, train_rows, held_out, options)
        inputs = [torch.from_numpy(preprocessor.prepare(part).inputs) for part in (train_rows, held_out, fresh)]
        head = TimeEstimationHead(12, (64, 64))
        teacher = fused_teacher(fitted.without_held_out)
        distill_head(head, inputs[0], settings=settings, generator=generator, teacher=teacher)
        with torch.inference_mode():
            of_held_out, of_fresh = (head(part).double().numpy() for part in inputs[1:])
        alarms += int((CalibrationByMode.fit(of_held_out).p_values(of_fresh).values <= rate).sum())
        fresh_rows += len(fresh)
    assert alarms / fresh_rows == pytest.approx(rate, abs=0.03)  # 6 calibrations on 80 scores: standard deviation 0.014


@pytest.mark.data
@pytest.mark.parametrize("name", REAL_SETS)
def test_realised_false_alarms_match_the_rate_on_the_real_sets(name: str) -> None:
    path = REAL / f"{name}.npz"
    if not path.is_file():
        pytest.skip("the data sets are not here: set VEDETTE_BENCH_DATA")
    with np.load(path) as arrays:
        rows = arrays["X"][arrays["y"] == 0].astype(np.float64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))][:3000]
    scores = scores_of(rows, 1000)
    held_out, fresh = (
        {key: values[part] for key, values in scores.items()} for part in (slice(1000), slice(1000, None))
    )
    fusion = Fusion.fit(held_out)
    p = {key: fusion.own[key].p_values(values).values for key, values in fresh.items()}
    p["fused"] = fusion.p_values(fusion.statistic(fresh)).values
    for method, values in p.items():
        low, high = likely_counts(0.05, 500 if method == "fused" else 1000, len(values))
        assert low <= (values <= 0.05).sum() <= high, method
