"""Cost of diffusion: training against its limit of 2 minutes, and few-step solvers against a 1000-step DDPM.

`training`: the default screener and analyzers of a table of 10,000 rows by 50 features, by the code of `vedette train`
with its defaults. The table is synthetic: six clusters, in each of which the features depend on twelve hidden factors,
every fifth feature skewed. The cost of training depends on the shape of the table, not on its values. `ratio`: seconds
as a share of 120. Other programs may share the cores: `cpu_seconds`, over all threads, exclude their share. `judging`:
the cloud's complete work on a row of that table (the four default analyzers, p-values, contributions) against the time
of a 1000-step DDPM for it; `speed_ratio` for eight draws.

`solvers`: partial diffusion (`reconstruction` and its relatives) by DPM-Solver++, DDIM and DDPM, from the same depth,
with the same trained denoiser and the same number of noise draws, eight. They differ in the solver, its number of
function evaluations (NFE), and the draws, which each solver has of its own. At one evaluation all solvers are the same,
so differences there come from the draws alone. `seconds_per_sample` is CPU time of one thread, for all draws of a batch
of 128. `ddpm_one_draw` is the 1000-step DDPM as published, without averaging over draws: an eighth of the cost. All
1000 steps lie below the depth; DDPM's linear schedule of 1000 steps up to pure noise would take 258 steps for partial
diffusion to this depth, a quarter of the cost. `full_analysis`: scores of the default analyzers, fused, and of the
baseline.

Data: one-class tasks on real data that comes with packages, two digits of scikit-learn's `digits` and two surfaces of
river's `ImageSegments` as the normal class. Two fifths of the normals are trained on, and 64 fresh normals and 64
anomalies of each task are scored, the same ones by every solver; 1000 steps with eight draws take too long for more.
The denoiser is trained for half of its default number of steps. AUROC is the mean over the tasks. `auroc_gain`:
few-step minus 1000-step, with its 95 % interval over draws of the scored rows (paired bootstrap). `speed_ratio`:
1000-step seconds over few-step seconds. The few-step solver is the default, DPM-Solver++ with 3 evaluations.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from benchmarks.contamination import Draw, draw
from benchmarks.row_tasks import packaged_tasks
from cloud.methods import ANALYZERS, BASELINES, Analyzer, Features, FitContext, VectorFeatures
from cloud.methods.families.reconstruction import (
    DEPTH_SIGMA,
    STEPS,
    DdimReconstruction,
    DdpmReconstruction,
    Reconstruction,
)
from cloud.methods.fusion import Fusion
from cloud.methods.restoration import DRAWS, levels_from
from cloud.metrics import auroc
from cloud.modalities import cloud_modality
from cloud.serving.analysis import Analysis
from cloud.training.data import TableData
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import Bundle, InputSpec
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.samplers import sample_ddpm
from shared.diffusion.training import OptimizerSettings
from shared.modalities import fit_preprocessor
from shared.modality import Modality

ROWS, FEATURES, CLUSTERS, FACTORS, LIMIT_S = 10_000, 50, 6, 12, 120.0
JUDGED = 256
TASKS = ("digits3", "digits8", "segments1", "segments4")
SCORED_PER_LABEL = 64
DENOISER_STEPS = 1000
EVALUATIONS, MANY = (1, 2, 3, 5, 10, 50), 1000
SOLVERS: dict[str, type[Reconstruction]] = {
    "dpm_solver": Reconstruction,
    "ddim": DdimReconstruction,
    "ddpm": DdpmReconstruction,
}
FEW, PUBLISHED, ONE_DRAW, FULL = f"dpm_solver.{STEPS}", f"ddpm.{MANY}", f"ddpm_one_draw.{MANY}", "full_analysis"
RESAMPLINGS = 400

Floats = NDArray[np.float64]


@dataclass
class TimedScores:
    """Scores of one method for the rows of each task, and the CPU seconds of scoring them."""

    scores: list[Floats] = field(default_factory=list)
    seconds: float = 0.0

    def seconds_per_sample(self) -> float:
        """Return the CPU seconds per row."""
        return self.seconds / sum(len(scores) for scores in self.scores)


def run() -> dict[str, Any]:
    """Return the figures of training, of judging and of each solver, and the comparisons of solvers."""
    torch.set_num_threads(1)
    bundle, training = _train(_table(np.random.default_rng(0)))
    print("training", training, flush=True)
    judging = _judge(bundle)
    print("judging", judging, flush=True)
    labels, scored = _score_tasks()
    means = {name: _mean_auroc(labels, result.scores) for name, result in scored.items()}
    solvers: dict[str, Any] = {}
    for name, result in scored.items():
        seconds = result.seconds_per_sample()
        solvers[name] = {"auroc": round(means[name], 4), "seconds_per_sample": float(f"{seconds:.3g}")}
    against = {
        f"{few}_against_{many}".replace(".", "_"): _compare(labels, scored[few], scored[many])
        for few in (FEW, FULL)
        for many in (PUBLISHED, ONE_DRAW)
    }
    return {"training": training, "judging": judging, **against, "solvers": solvers}


def draw_picture(figures: dict[str, Any], path: Path) -> None:
    """Draw AUROC against the number of function evaluations, one line per solver."""
    from cloud.evaluation.plots.style import BASELINE, CLOUD, EDGE, new_figure, save, style_axes

    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    solvers = figures["solvers"]
    looks = {"dpm_solver": ("DPM-Solver++", CLOUD, "o"), "ddim": ("DDIM", BASELINE, "s"), "ddpm": ("DDPM", EDGE, "^")}
    for solver, (label, colour, marker) in looks.items():
        counts = [nfe for nfe in (*EVALUATIONS, MANY) if f"{solver}.{nfe}" in solvers]
        points = [(nfe, solvers[f"{solver}.{nfe}"]["auroc"]) for nfe in counts]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, linewidth=1.6, label=label)
    axes.plot(MANY, solvers[ONE_DRAW]["auroc"], "^", color=EDGE, markerfacecolor="white", label="DDPM, one draw")
    axes.axhline(solvers[FULL]["auroc"], color=CLOUD, linewidth=1, linestyle="--", label="fused default analyzers")
    axes.set_xscale("log")
    axes.set_xticks([*EVALUATIONS, MANY], [f"{nfe:,}" for nfe in (*EVALUATIONS, MANY)])
    axes.minorticks_off()
    axes.set_ylim(min(one["auroc"] for one in solvers.values()) - 0.04, 1.0)  # do not magnify small differences
    style_axes(
        axes, "Detection against cost", "function evaluations per draw (NFE)", f"AUROC, mean over {len(TASKS)} tasks"
    )
    axes.legend(fontsize=8, frameon=False, loc="lower left", ncols=2)
    save(figure, path)


def _table(rng: np.random.Generator) -> TableData:
    """Return a table of ROWS correlated rows from several clusters, all normal."""
    cluster = rng.integers(0, CLUSTERS, ROWS)
    centres = 2.0 * rng.normal(size=(CLUSTERS, FEATURES))
    loadings = rng.normal(size=(CLUSTERS, FACTORS, FEATURES))
    factors = rng.normal(size=(ROWS, FACTORS))
    rows = centres[cluster] + np.einsum("nk,nkf->nf", factors, loadings[cluster])
    rows += 0.3 * rng.normal(size=rows.shape)
    rows[:, ::5] = np.exp(rows[:, ::5] / 4.0)
    columns = tuple(f"x{index}" for index in range(FEATURES))
    return TableData(Modality.TABULAR, "mixture.npz", columns, rows, np.ones(ROWS, dtype=np.bool_))


def _train(table: TableData) -> tuple[Bundle, dict[str, Any]]:
    """Return the bundle; seconds, their share of the limit, and each stage's share of the seconds."""
    begun: list[tuple[str, float]] = []

    def on_progress(stage: str, share: float) -> None:
        if not begun or begun[-1][0] != stage:
            begun.append((stage, time.perf_counter()))

    started_s, cpu_s = time.perf_counter(), time.process_time()
    bundle = train_bundle(table, TrainingSettings(), Ed25519PrivateKey.generate(), on_progress)
    ended_s, cpu_s = time.perf_counter(), time.process_time() - cpu_s
    seconds = ended_s - started_s
    shares: dict[str, float] = {}
    for (stage, begin_s), (_, end_s) in zip(begun, [*begun[1:], ("", ended_s)], strict=True):
        shares[stage] = round(shares.get(stage, 0.0) + (end_s - begin_s) / seconds, 3)
    figures = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_s, 1), "ratio": round(seconds / LIMIT_S, 3)}
    return bundle, figures | {"share_of_seconds": shares}


def _judge(bundle: Bundle) -> dict[str, float]:
    """Return CPU seconds per row of the whole analysis, and the ratio of a DDPM's seconds to them.

    The denoiser of the DDPM is untrained: its weights do not change the time.
    """
    analysis = Analysis.load(bundle, "cpu")
    rows = _table(np.random.default_rng(1)).rows[:JUDGED]
    judged = min(_cpu_seconds(lambda: analysis.judge(list(rows))) for _ in range(3)) / JUDGED
    denoiser, noise = VectorDenoiser(FEATURES), torch.randn(JUDGED, FEATURES)
    sigmas = levels_from(DEPTH_SIGMA, MANY)
    with torch.inference_mode():
        one_draw = _cpu_seconds(lambda: sample_ddpm(denoiser, noise, sigmas, noise=lambda step: noise)) / JUDGED
    return {
        "seconds_per_sample": float(f"{judged:.3g}"),
        "speed_ratio_one_draw": round(one_draw / judged, 1),
        "speed_ratio": round(DRAWS * one_draw / judged, 1),
    }


def _score_tasks() -> tuple[list[NDArray[np.bool_]], dict[str, TimedScores]]:
    """Return the labels of each task's rows, and the scores and seconds by method."""
    labels: list[NDArray[np.bool_]] = []
    scored: dict[str, TimedScores] = {}
    for task in packaged_tasks():
        if task.name not in TASKS:
            continue
        split = draw(task, 0.0, clustered=False, seed=0)
        rng = np.random.default_rng(0)
        by_label = [
            rng.permutation(np.flatnonzero(split.labels == label))[:SCORED_PER_LABEL] for label in (False, True)
        ]
        chosen = np.concatenate(by_label)
        labels.append(split.labels[chosen])
        train, held_out, test = _features(split, split.train, split.held_out, split.test[chosen])
        context = FitContext(training=OptimizerSettings(steps=DENOISER_STEPS))
        for name, analyzer in _solvers().items():
            analyzer.fit(train, context)
            _keep(scored, name, partial(_scores, analyzer, test))
        _keep(scored, FULL, _full(train, held_out, test, context))
        print(task.name, {name: round(auroc(labels[-1], result.scores[-1]), 3) for name, result in scored.items()})
    return labels, scored


def _solvers() -> dict[str, Analyzer]:
    """Return each solver with each number of function evaluations; only DDPM runs the largest number."""
    solvers: dict[str, Analyzer] = {
        f"{name}.{steps}": kind(steps=steps) for name, kind in SOLVERS.items() for steps in EVALUATIONS
    }
    return {
        **solvers,
        PUBLISHED: DdpmReconstruction(steps=MANY),
        ONE_DRAW: DdpmReconstruction(steps=MANY, draws=1),
    }


def _scores(analyzer: Analyzer, features: Features) -> Floats:
    with torch.inference_mode():
        scores: Floats = analyzer.score(features).scores.double().numpy()
    return scores


def _full(train: Features, held_out: Features, test: Features, context: FitContext) -> Callable[[], Floats]:
    """Fit the default analysis and return a function that scores `test`."""
    members = cloud_modality(Modality.TABULAR).default_methods
    fitted = {name: ANALYZERS[name]() for name in dict.fromkeys((*members, *BASELINES))}
    for analyzer in fitted.values():
        analyzer.fit(train, context)

    def scores(features: Features) -> dict[str, Floats]:
        return {name: _scores(analyzer, features) for name, analyzer in fitted.items()}

    fusion = Fusion.fit(scores(held_out), members=members)
    return lambda: fusion.statistic(scores(test))


def _features(split: Draw, *groups: Floats) -> list[Features]:
    spec = InputSpec(channels=tuple(f"x{index}" for index in range(split.train.shape[1])))
    preprocessor = fit_preprocessor(Modality.TABULAR, split.train, spec)
    return [VectorFeatures(torch.from_numpy(preprocessor.prepare(rows).inputs).unsqueeze(1)) for rows in groups]


def _keep(scored: dict[str, TimedScores], name: str, score: Callable[[], Floats]) -> None:
    """Record scores and CPU seconds of one task; repeat a run below one second twice and keep the shortest."""
    results: list[Floats] = []
    seconds = _cpu_seconds(lambda: results.append(score()))
    if seconds < 1.0:
        seconds = min(seconds, *(_cpu_seconds(score) for _ in range(2)))
    record = scored.setdefault(name, TimedScores())
    record.scores.append(results[0])
    record.seconds += seconds


def _cpu_seconds(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def _mean_auroc(labels: list[NDArray[np.bool_]], scores: list[Floats]) -> float:
    return float(
        np.mean([auroc(of_task, scores_of_task) for of_task, scores_of_task in zip(labels, scores, strict=True)])
    )


def _compare(labels: list[NDArray[np.bool_]], few: TimedScores, many: TimedScores) -> dict[str, Any]:
    """Compare speed and AUROC of `few` with `many` on the same rows."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(RESAMPLINGS):
        rows = [_resampled(of_task, rng) for of_task in labels]
        drawn = [of_task[at] for of_task, at in zip(labels, rows, strict=True)]
        of_few, of_many = ([scores[at] for scores, at in zip(one.scores, rows, strict=True)] for one in (few, many))
        gains.append(_mean_auroc(drawn, of_few) - _mean_auroc(drawn, of_many))
    low, high = np.quantile(gains, (0.025, 0.975))
    gain = _mean_auroc(labels, few.scores) - _mean_auroc(labels, many.scores)
    return {
        "speed_ratio": round(many.seconds_per_sample() / few.seconds_per_sample(), 1),
        "auroc_gain": round(gain, 4),
        "auroc_gain_95": f"{low:+.4f} to {high:+.4f}",
    }


def _resampled(labels: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return positions drawn with replacement, as many normals and anomalies as in `labels`."""
    return np.concatenate([rng.choice(at, len(at)) for at in (np.flatnonzero(~labels), np.flatnonzero(labels))])


if __name__ == "__main__":
    run()
