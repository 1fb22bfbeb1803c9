"""ROC and precision-recall curves of every method."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cloud.evaluation.metrics import FALSE_ALARM_RATES, average_precision
from cloud.evaluation.plots.style import (
    BASELINE,
    OTHER,
    has_own_legend_entry,
    legend_label,
    line_style,
    new_figure,
    ordered_methods,
    style_axes,
)
from cloud.evaluation.result import Evaluation
from cloud.metrics import auroc

_MAX_POINTS = 2000


def draw_curves(evaluation: Evaluation) -> Figure | None:
    """Draw both curves side by side; None without labels."""
    labels = evaluation.labels
    if labels is None:
        return None
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2)
    edge = evaluation.scored.edge
    others_in_legend = False
    for method in ordered_methods(evaluation.methods, edge):
        scores = evaluation.methods[method].scores
        colour, dashes, width, layer = line_style(method, edge)
        named = has_own_legend_entry(method, edge)
        rates, recalls, precisions = _curve(labels, scores)
        style = {"color": colour, "linestyle": dashes, "linewidth": width, "zorder": layer}
        name = legend_label(method, edge) if named else "_" if others_in_legend else "other methods"
        roc_name = f"{name}, {100 * auroc(labels, scores):.1f}" if named else name
        pr_name = f"{name}, {100 * average_precision(labels, scores):.1f}" if named else name
        left.plot(rates, recalls, label=roc_name, **style)
        right.plot(recalls, precisions, label=pr_name, **style)
        others_in_legend = others_in_legend or not named
    _finish_roc(left)
    style_axes(right, "Precision and recall (area in per cent)", "recall", "precision")
    share = float(labels.mean())
    right.axhline(share, color=BASELINE, linewidth=0.8, linestyle=(0, (1, 3)))
    right.annotate(
        "chance", (1.0, share), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=7, color=BASELINE
    )
    for axes in (left, right):
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.03)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    right.legend(fontsize=8, frameon=False, loc="best")
    return figure


def _finish_roc(axes: Axes) -> None:
    style_axes(axes, "ROC (area in per cent)", "false-alarm rate", "recall")
    axes.plot([0, 1], [0, 1], color=OTHER, linewidth=0.8, linestyle=(0, (1, 3)))
    for rate in FALSE_ALARM_RATES:
        axes.axvline(rate, color=OTHER, linewidth=0.8)
        axes.annotate(f"{100 * rate:g} %", (rate, 0.3), fontsize=7, color=BASELINE, rotation=90, va="center")


def _curve(
    labels: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return false-alarm rate, recall and precision at up to _MAX_POINTS thresholds."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(labels[order])[last_of_ties]
    flagged = last_of_ties + 1
    if len(flagged) > _MAX_POINTS:
        thin = np.unique(np.linspace(0, len(flagged) - 1, _MAX_POINTS, dtype=np.intp))
        hits, flagged = hits[thin], flagged[thin]
    rates = np.concatenate([[0.0], (flagged - hits) / max(len(labels) - hits[-1], 1)])
    recalls = np.concatenate([[0.0], hits / hits[-1]])
    precision = hits / flagged
    return rates, recalls, np.concatenate([precision[:1], precision])
