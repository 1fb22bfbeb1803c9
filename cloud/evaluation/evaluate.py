"""Evaluation of a bundle on a data set: score statistics of every method and, with labels, its metrics."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.evaluation_data import EvaluationData, read_evaluation_data
from cloud.evaluation.findings import findings, key_figures
from cloud.evaluation.images import at_masks, image_baselines, read_masks
from cloud.evaluation.method_metrics import routing_figures, sample_figures
from cloud.evaluation.metrics import FALSE_ALARM_RATES, detection_figures
from cloud.evaluation.pixels import pixel_figures
from cloud.evaluation.result import Evaluation
from cloud.evaluation.scoring import BundleScorer, MethodScores, Scored
from cloud.evaluation.series import point_scores, series_figures
from cloud.outputs import check_output_folder
from cloud.training.progress import StageProgress
from cloud.training.settings import DataSettings
from shared.bundle import REFERENCE_FILE, Bundle
from shared.preprocessing import Preprocessor, ReadingSums, measured_positions

QUANTILES = (0.5, 0.9, 0.99, 1.0)
MAX_REJECTION_REASONS = 5


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Bundle and data to evaluate; `reading`: how to read the data; `plots`: folder for plots, or None."""

    bundle: Path
    data: Path
    reading: DataSettings = field(default_factory=DataSettings)
    device: str = "auto"
    plots: Path | None = None


def evaluate_bundle(request: EvaluationRequest, trusted: Ed25519PublicKey, progress: StageProgress) -> dict[str, Any]:
    """Evaluate a bundle, draw the requested plots, and return the result as JSON values.

    Raises BundleError if the bundle cannot be used, DataError if the data does not fit it, and SettingsError if no plot
    can be written.
    """
    progress("opening the bundle", 0.0)
    bundle = Bundle.open(request.bundle, [trusted])
    data = read_evaluation_data(request.data, bundle.manifest, request.reading)
    check_output_folder(request.plots, "--plots")
    return evaluate_data(bundle, data, request, progress)


def evaluate_data(
    bundle: Bundle, data: EvaluationData, request: EvaluationRequest, progress: StageProgress
) -> dict[str, Any]:
    """Do the same for an open bundle and data that was read already, such as a part of the training data."""
    scorer = BundleScorer(bundle, request.device)
    progress("scoring", 0.0)
    scored = scorer.score(data.blocks(), lambda share: progress("scoring", share), data.count)
    progress("fitting the baselines", 0.0)
    methods = {**scored.methods, **_baselines(bundle, scorer, data, scored)}
    labels = None if data.labels is None else data.labels[scored.kept]
    labels = labels if labels is not None and labels.any() and not labels.all() else None
    evaluation = Evaluation(bundle.manifest, data, scored, methods, labels)
    result = _result(evaluation, request)
    members = [name for name, weight in scorer.analysis.fusion.weights.items() if weight > 0]
    normals = None if data.labels is None else int(np.count_nonzero(~data.labels[scored.kept]))
    result["key_figures"] = key_figures(result)
    result["findings"] = findings(result, members, _differences(scorer.preprocessor, data), normals)
    if request.plots is not None:
        from cloud.evaluation.plots import draw_all

        drawn = draw_all(evaluation, request.plots, lambda share: progress("drawing", share))
        result["plots"] = [path.name for path in drawn]
    return result


def _baselines(bundle: Bundle, scorer: BundleScorer, data: EvaluationData, scored: Scored) -> dict[str, MethodScores]:
    """Fit kNN and Isolation Forest and return their scores by name.

    Images: fitted on the good images of the data set. Other data: fitted on the held-out normal samples of the bundle.
    Returns an empty dict if there are no normal samples.
    """
    if data.images:
        kept = [data.images[index] for index in scored.kept]
        return dict(image_baselines(bundle, data.good, kept)) if data.good else {}
    if REFERENCE_FILE not in bundle.files:
        return {}
    normal = scorer.preprocessor.graph_inputs(bundle.arrays(REFERENCE_FILE)["held_out"])
    inputs = np.concatenate([scorer.inputs(block) for block in data.blocks()])
    baselines = baseline_scores(normal.reshape(len(normal), -1), inputs.reshape(len(inputs), -1))
    return {name: MethodScores(scores) for name, scores in baselines.items()}


def _differences(preprocessor: Preprocessor, data: EvaluationData) -> list[str]:
    """Return the channels whose normal readings, or all without labels, differ from the training data, in words."""
    ranges = preprocessor.ranges()
    if ranges is None or data.readings is None:
        return []
    anomalous = data.point_labels if data.starts is not None else data.labels
    readings = data.readings if anomalous is None else data.readings[~anomalous]
    sums = ReadingSums.empty(ranges.mean)
    sums.add(readings[:, measured_positions(preprocessor.spec)])
    return ranges.differences(sums) if len(readings) else []


def _result(evaluation: Evaluation, request: EvaluationRequest) -> dict[str, Any]:
    scored, labels, manifest = evaluation.scored, evaluation.labels, evaluation.manifest
    result: dict[str, Any] = {
        "status": "ok",
        "bundle": manifest.bundle_id,
        "data": request.data.name,
        "modality": str(manifest.modality),
        "samples": len(scored.kept),
        "rejected": len(scored.rejections),
        "rejections": [
            f"{_place(evaluation.data, position)} {reason}"
            for position, reason in scored.rejections[:MAX_REJECTION_REASONS]
        ],
        "anomalies": None if labels is None else int(labels.sum()),
        "edge": scored.edge,
        "false_alarm_rates": list(FALSE_ALARM_RATES),
        "notes": _notes(evaluation, request),
        "methods": {name: describe(method) for name, method in evaluation.methods.items()},
        "leaderboard": {},
    }
    if labels is None:
        return result
    for name, figures in _figures(evaluation).items():
        result["methods"][name] |= figures
    result["leaderboard"] = routing_figures(labels, scored)
    return result


def _place(data: EvaluationData, position: int) -> str:
    """Return the place of a sample in words: the row of a table, else its number; both count from 1."""
    return f"{'sample' if data.row_numbers is None else 'row'} {data.row_number(position)}"


def describe(method: MethodScores) -> dict[str, float]:
    """Return label-free statistics of a method: quantiles of scores and p-values, and the share it flags."""
    figures = {f"score_q{100 * share:g}": float(np.quantile(method.scores, share)) for share in QUANTILES}
    if method.p_values is not None:
        figures["p_median"] = float(np.median(method.p_values))
        figures["p_lowest"] = float(method.p_values.min())
        for rate in FALSE_ALARM_RATES:
            figures[f"flagged_at_{100 * rate:g}"] = float(np.mean(method.p_values <= rate))
    return figures


def _figures(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return the metrics of all methods on labelled data, by method.

    Besides samples, the metrics cover time points of series, frames of videos, and pixels of images with masks.
    """
    assert evaluation.labels is not None  # the caller checked
    data, scored = evaluation.data, evaluation.scored
    figures = sample_figures(evaluation.labels, evaluation.methods)
    points = data.point_labels
    if data.starts is not None and data.readings is not None and points is not None:
        for name, method in evaluation.methods.items():
            starts = data.starts[scored.kept]
            scores = point_scores(method.scores, starts, data.window_length, len(points))
            figures[name] |= {
                f"point_{key}" if key != "vus_pr" else key: value
                for key, value in series_figures(points, scores).items()
            }
    if data.clips is not None:
        truth = data.clips.frame_labels
        for name, method in evaluation.methods.items():
            scores = data.clips.frame_scores(method.scores, scored.kept)
            figures[name] |= {f"frame_{key}": value for key, value in detection_figures(truth, scores).items()}
    if data.masks:
        masks = read_masks([data.masks[index] for index in scored.kept], evaluation.labels)
        for name, method in evaluation.methods.items():
            if masks is not None and method.maps is not None:
                figures[name] |= pixel_figures(*at_masks(method.maps, masks))
    return figures


def _notes(evaluation: Evaluation, request: EvaluationRequest) -> list[str]:
    notes = []
    labels = evaluation.data.labels
    if labels is not None and evaluation.labels is None:
        notes.append(f"all samples are {'anomalous' if labels.any() else 'normal'} by their labels: no ranking metrics")
    same = evaluation.manifest.training.get("data") == request.data.name
    if same and not evaluation.data.has_test_part and not evaluation.data.good:
        notes.append("the bundle was trained on data of this name: metrics on training samples are too optimistic")
    return notes
