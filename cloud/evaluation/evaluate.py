"""`vedette evaluate`: what every method of a bundle says of data, and with labels how often it is right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.evaluation import Evaluation
from cloud.evaluation.figures import routing_figures, sample_figures
from cloud.evaluation.images import at_masks, image_baselines, read_masks
from cloud.evaluation.material import Material, read_material
from cloud.evaluation.metrics import FALSE_ALARM_RATES, detection_figures
from cloud.evaluation.pixels import pixel_figures
from cloud.evaluation.scoring import BundleScorer, Said, Scored
from cloud.evaluation.series import point_scores, series_figures
from shared.bundle import REFERENCE_FILE, Bundle

QUANTILES = (0.5, 0.9, 0.99, 1.0)
_REASONS_TOLD = 5

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: a bundle on data, and a folder for plots or None."""

    bundle: Path
    data: Path
    label_column: str = ""
    time_column: str = ""
    device: str = "auto"
    plots: Path | None = None


def evaluate_bundle(request: Request, trusted: Ed25519PublicKey, progress: Progress) -> dict[str, Any]:
    """The evaluation as JSON values; plots are written on the way.

    Raises BundleError for a bundle that cannot be used, DataError for data that does not fit it.
    """
    progress("opening the bundle", 0.0)
    bundle = Bundle.open(request.bundle, [trusted])
    material = read_material(request.data, bundle.manifest, request.label_column, request.time_column)
    scorer = BundleScorer(bundle, request.device)
    progress("judging", 0.0)
    scored = scorer.score(material.blocks(), lambda share: progress("judging", share), material.count)
    progress("fitting the baselines", 0.0)
    said = {**scored.methods, **_baselines(bundle, scorer, material, scored)}
    labels = None if material.labels is None else material.labels[scored.kept]
    labels = labels if labels is not None and labels.any() and not labels.all() else None
    evaluation = Evaluation(bundle.manifest, material, scored, said, labels)
    result = _result(evaluation, request)
    if request.plots is not None:
        from cloud.evaluation.plots import draw_all

        drawn = draw_all(evaluation, request.plots, lambda share: progress("drawing", share))
        result["plots"] = [path.name for path in drawn]
    return result


def _baselines(bundle: Bundle, scorer: BundleScorer, material: Material, scored: Scored) -> dict[str, Said]:
    """kNN and Isolation Forest: on the bundle's held-out normals, of images on the good ones beside the judged.

    None where there are no such normals.
    """
    if material.images:
        kept = [material.images[index] for index in scored.kept]
        return dict(image_baselines(bundle, material.good, kept)) if material.good else {}
    if REFERENCE_FILE not in bundle.files:
        return {}
    normal = scorer.preprocessor.graph_inputs(bundle.arrays(REFERENCE_FILE)["held_out"])
    inputs = np.concatenate([scorer.inputs(block) for block in material.blocks()])
    found = baseline_scores(normal.reshape(len(normal), -1), inputs.reshape(len(inputs), -1))
    return {name: Said(scores) for name, scores in found.items()}


def _result(evaluation: Evaluation, request: Request) -> dict[str, Any]:
    scored, labels, manifest = evaluation.scored, evaluation.labels, evaluation.manifest
    result: dict[str, Any] = {
        "status": "ok",
        "bundle": manifest.bundle_id,
        "data": request.data.name,
        "modality": str(manifest.modality),
        "samples": len(scored.kept),
        "rejected": len(scored.rejections),
        "rejections": [f"sample {position + 1} {reason}" for position, reason in scored.rejections[:_REASONS_TOLD]],
        "anomalies": None if labels is None else int(labels.sum()),
        "edge": scored.edge,
        "false_alarm_rates": list(FALSE_ALARM_RATES),
        "notes": _notes(evaluation, request),
        "methods": {name: describe(method) for name, method in evaluation.said.items()},
        "leaderboard": {},
    }
    if labels is None:
        return result
    for name, figures in _figures(evaluation).items():
        result["methods"][name] |= figures
    result["leaderboard"] = routing_figures(labels, scored)
    return result


def describe(method: Said) -> dict[str, float]:
    """What a method says, without labels: quantiles of its scores and p-values, and the share it flags."""
    figures = {f"score_q{100 * share:g}": float(np.quantile(method.scores, share)) for share in QUANTILES}
    if method.p_values is not None:
        figures["p_median"] = float(np.median(method.p_values))
        figures["p_lowest"] = float(method.p_values.min())
        for rate in FALSE_ALARM_RATES:
            figures[f"flagged_at_{100 * rate:g}"] = float(np.mean(method.p_values <= rate))
    return figures


def _figures(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """With labels: figures of samples; of time points for a series, of pixels where there are masks."""
    assert evaluation.labels is not None  # asked for only then
    material, scored = evaluation.material, evaluation.scored
    figures = sample_figures(evaluation.labels, evaluation.said)
    points = material.point_labels
    if material.starts is not None and material.readings is not None and points is not None:
        for name, method in evaluation.said.items():
            starts = material.starts[scored.kept]
            scores = point_scores(method.scores, starts, material.window_length, len(points))
            figures[name] |= {
                f"point_{key}" if key != "vus_pr" else key: value
                for key, value in series_figures(points, scores).items()
            }
    if material.footage is not None:
        truth = material.footage.frame_labels
        for name, method in evaluation.said.items():
            scores = material.footage.frame_scores(method.scores, scored.kept)
            figures[name] |= {f"frame_{key}": value for key, value in detection_figures(truth, scores).items()}
    if material.masks:
        masks = read_masks([material.masks[index] for index in scored.kept], evaluation.labels)
        for name, method in evaluation.said.items():
            if masks is not None and method.maps is not None:
                figures[name] |= pixel_figures(*at_masks(method.maps, masks))
    return figures


def _notes(evaluation: Evaluation, request: Request) -> list[str]:
    notes = []
    labels = evaluation.material.labels
    if labels is not None and evaluation.labels is None:
        notes.append(
            f"all samples are {'anomalous' if labels.any() else 'normal'} by their labels: no figures of ranking"
        )
    same = evaluation.manifest.training.get("data") == request.data.name
    if same and not evaluation.material.apart and not evaluation.material.good:
        notes.append("the bundle was trained on data of this name: figures of samples it has seen flatter")
    return notes
