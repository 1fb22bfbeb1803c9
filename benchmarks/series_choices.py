"""Fusion members for series and distillation of the screener, compared by mean VUS-PR on development series.

The development series (`benchmarks/series_tasks.py`) are:

* `machines`: the training halves of the Server Machine Dataset with injected anomalies;
* `later`: the same with a gap of time between the fitted and the judged part;
* `injected`: normal stretches of NAB and of the Tennessee Eastman process with injected anomalies;
* `faults`: faults of the Tennessee Eastman process;
* `nab`: labelled NAB series.

No labelled half of a benchmark set is used. Figures are means by group for each method alone and for fusions. The score
of a point is the mean score of the windows that hold it. Networks are trained for a quarter of the default steps.

* `fused, smoothed`: the default fusion, with points averaged again over two window lengths.
* `plain_knn`: nearest neighbours of plain standardised windows.
* `screener on inputs`, `screener on inputs and windows`: the head, distilled from the default fusion on perturbed
  inputs alone, or on perturbed windows as well.
* `mixed`, `far`: Spearman's rho of the head with its teacher instead of VUS-PR, on windows with some channels of
  another machine (`mixed`) and on windows of another machine (`far`).
* `slope S`: the same rho for the second head plus S times the log of the distance from the box of normal inputs
  (`VectorScreener`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.stats import spearmanr

from benchmarks.group_means import group_means
from benchmarks.series_tasks import GROUPS, SeriesTask, tasks
from cloud.evaluation.series import point_scores
from cloud.evaluation.vus import vus_pr
from cloud.methods import ANALYZERS, Analyzer, Features, FitContext, VectorFeatures, WindowFeatures
from cloud.methods.fusion import Fusion
from cloud.modalities import cloud_modality, vector_modality
from cloud.serving.encoding import Samples
from cloud.training.modalities.series import TrainingSeries
from cloud.training.samples.perturbed_windows import perturbed_inputs
from cloud.training.samples.windows import choose_length, cut_windows
from cloud.training.screeners import VectorScreener
from cloud.training.settings import TrainingSettings
from shared.bundle import InputSpec
from shared.diffusion.distillation import distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import OptimizerSettings
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor

PLAIN = "plain_knn"
METHODS = ("time_estimation", "channel_imputation", "score_norm", "masked_likelihood", PLAIN)
FUSIONS = (
    ("time_estimation", "channel_imputation"),
    ("time_estimation", "channel_imputation", "score_norm"),
    ("time_estimation", "channel_imputation", PLAIN),
    ("time_estimation", "score_norm", "masked_likelihood"),
)
TRAIN_SHARE, MAX_WINDOWS, MAX_HELD_OUT, MAX_TEST = 0.7, 6000, 1500, 5000
STEPS = 500
SCREENED = ("machines", "later", "faults")  # groups whose first task also measures a screener
MAX_FOREIGN = 700
SLOPES = (0.0, 0.05, 0.1, 0.2, 0.5)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Fitted preprocessor and analyzers of one task, with its windows.

    `calibration`: scores of held-out normal windows by method. `normal`: windows (n, length, channels) to fit on.
    `test`: judged windows (n, length, channels) that start at the time points `starts` (n,).
    """

    preprocessor: Preprocessor
    analyzers: Mapping[str, Analyzer]
    calibration: Mapping[str, Floats]
    normal: Floats
    test: Floats
    starts: NDArray[np.intp]
    length: int


def run(quick: bool = False) -> dict[str, Any]:
    """Return mean VUS-PR by method and group; `quick` uses one task per group and one screener."""
    torch.set_num_threads(1)
    screened = SCREENED[:1] if quick else SCREENED

    def measure(group: str, number: int, task: SeriesTask) -> dict[str, float]:
        fitted = fit(task)
        figures = method_figures(task, fitted)
        return figures | (screener_figures(task, fitted) if number == 0 and group in screened else {})

    return group_means(GROUPS, tasks, measure, quick=quick)


def fit(task: SeriesTask) -> Fitted:
    """Calibrate on the last normal readings and fit on all of them.

    Analyzers that train a network are fitted only once, on the readings before the calibration part.
    """
    length = choose_length([task.train])
    boundary = int(TRAIN_SHARE * len(task.train))
    train, held_out, every = (
        _evenly(cut_windows(readings, length, 1), max_count)
        for readings, max_count in (
            (task.train[:boundary], MAX_WINDOWS),
            (task.train[boundary:], MAX_HELD_OUT),
            (task.train, MAX_WINDOWS),
        )
    )
    channels = tuple(f"channel{index + 1}" for index in range(task.train.shape[1]))
    spec = InputSpec(channels=channels, window_length=length, window_stride=1)
    preprocessor = fit_preprocessor(Modality.SERIES, train, spec)
    on_part = _fit_analyzers(_features(preprocessor, train), METHODS)
    features = _features(preprocessor, held_out)
    calibration = {name: _scores(analyzer, features, name) for name, analyzer in on_part.items()}
    on_all = _fit_analyzers(
        _features(preprocessor, every), [name for name in METHODS if name == PLAIN or ANALYZERS[name].is_quick]
    )
    stride = -(-(len(task.test) - length + 1) // MAX_TEST)
    test = cut_windows(task.test, length, stride)
    starts = np.arange(len(test), dtype=np.intp) * stride
    return Fitted(preprocessor, {**on_part, **on_all}, calibration, every, test, starts, length)


def method_figures(task: SeriesTask, fitted: Fitted) -> dict[str, float]:
    """Return VUS-PR of each method and fusion, and of the smoothed default fusion."""
    features = _features(fitted.preprocessor, fitted.test)
    scores = {name: _scores(analyzer, features, name) for name, analyzer in fitted.analyzers.items()}
    figures = {name: vus_pr(task.labels, _points(task, fitted, of_method)) for name, of_method in scores.items()}
    for members in FUSIONS:
        points = _points(task, fitted, _fusion(fitted, members).statistic(scores))
        figures[" + ".join(members)] = vus_pr(task.labels, points)
        if members == cloud_modality(Modality.SERIES).default_methods:
            smoothed = uniform_filter1d(points, 2 * fitted.length, mode="nearest")
            figures["fused, smoothed"] = vus_pr(task.labels, smoothed)
    return figures


def screener_figures(task: SeriesTask, fitted: Fitted) -> dict[str, float]:
    """Return VUS-PR of heads distilled from the default fusion.

    Also return Spearman's rho of each head with its teacher on windows of another machine.
    """
    members = cloud_modality(Modality.SERIES).default_methods
    fusion = _fusion(fitted, members)
    cpu = torch.device("cpu")

    def teacher(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        features = vector_modality(Modality.SERIES).vector_features(vectors.numpy(), fitted.preprocessor, cpu)
        scores = {name: _scores(fitted.analyzers[name], features, name) for name in members}
        return torch.from_numpy(np.log1p(fusion.statistic(scores))).to(vectors)

    def inputs(windows: Floats) -> torch.Tensor:
        return torch.from_numpy(fitted.preprocessor.prepare(windows).inputs)

    normals, test = inputs(fitted.normal), inputs(fitted.test)
    figures = {}
    for name, own in (("inputs", None), ("inputs and windows", perturbed_inputs(fitted.preprocessor, fitted.normal))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = TimeEstimationHead(normals.shape[1])
        settings = TrainingSettings().distillation(TrainingSeries.distillation)
        generator = torch.Generator().manual_seed(0)
        distill_head(head, normals, settings=settings, generator=generator, teacher=teacher, perturbation=own)
        with torch.no_grad():
            scores = head(test).double().numpy()
            figures[f"screener on {name}"] = vus_pr(task.labels, _points(task, fitted, scores))
            for kind, windows in _foreign(task, fitted).items():
                vectors = inputs(windows)
                of_teacher = teacher(vectors, torch.zeros(0)).numpy()
                figures[f"screener on {name}, {kind}"] = _rho(head(vectors), of_teacher)
                if own is not None:
                    beyond = VectorScreener.within(head, normals.numpy()).beyond(vectors)
                    for slope in SLOPES:
                        figures[f"slope {slope}, {kind}"] = _rho(head(vectors) + slope * beyond, of_teacher)
    return figures


def _rho(scores: torch.Tensor, of_teacher: Floats) -> float:
    return float(spearmanr(scores.numpy(), of_teacher).statistic)


def _foreign(task: SeriesTask, fitted: Fitted) -> dict[str, Floats]:
    """Return windows of another machine, and windows of this machine with some channels of the other.

    Series that are not of machines have none.
    """
    if task.group not in ("machines", "later"):
        return {}
    other = next(one for one in tasks(task.group) if one.name != task.name)
    far = _evenly(cut_windows(other.train, fitted.length, 1), MAX_FOREIGN)
    own = _evenly(cut_windows(task.test, fitted.length, 1), MAX_FOREIGN)
    rng = np.random.default_rng(0)
    taken = rng.random((len(own), 1, far.shape[2])) < rng.uniform(0.05, 0.5, (len(own), 1, 1))
    return {"mixed": np.where(taken, far[: len(own)], own), "far": far}


def _fusion(fitted: Fitted, members: tuple[str, ...]) -> Fusion:
    return Fusion.fit({name: fitted.calibration[name] for name in members}, in_order=True)


def _features(preprocessor: Preprocessor, windows: Floats) -> Features:
    return Samples.prepare(preprocessor, windows).features(None, torch.device("cpu"))


def _fit_analyzers(features: Features, methods: Any) -> dict[str, Analyzer]:
    context = FitContext(training=OptimizerSettings(steps=STEPS))
    fitted = {}
    for name in methods:
        fitted[name] = ANALYZERS["knn" if name == PLAIN else name]()
        fitted[name].fit(_features_for(name, features), context)
    return fitted


def _scores(analyzer: Analyzer, features: Features, name: str) -> Floats:
    with torch.inference_mode():
        scores: Floats = analyzer.score(_features_for(name, features)).scores.double().numpy()
    return scores


def _features_for(name: str, features: Features) -> Features:
    if name != PLAIN or not isinstance(features, WindowFeatures):
        return features
    return VectorFeatures(features.windows.flatten(1).unsqueeze(1))


def _points(task: SeriesTask, fitted: Fitted, scores: Floats) -> Floats:
    return point_scores(scores, fitted.starts, fitted.length, len(task.labels))


def _evenly(windows: Floats, max_count: int) -> Floats:
    """Return at most `max_count` evenly spaced windows."""
    count = min(max_count, len(windows))
    return windows[np.linspace(0, len(windows) - 1, count).astype(np.intp)]
