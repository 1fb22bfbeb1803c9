"""Calibration plots: p-values of normal samples, which should be uniform."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cloud.evaluation.metrics import FALSE_ALARM_RATES, clopper_pearson
from cloud.evaluation.plots.style import ANOMALY, BASELINE, OTHER, legend_label, line_style, new_figure, style_axes
from cloud.evaluation.result import Evaluation
from cloud.serving.analysis import FUSED

_BINS = 20
_BAND_POINTS = 60


def draw_p_values(evaluation: Evaluation) -> Figure | None:
    """Draw histograms of the edge's and the fused p-values, and the realised rates; None without p-values."""
    edge = evaluation.scored.edge
    p_values = {name: evaluation.methods[name].p_values for name in (edge, FUSED)}
    shown = {name: values for name, values in p_values.items() if values is not None}
    if not shown:
        return None
    normal = np.ones(len(evaluation.scored.kept), dtype=np.bool_) if evaluation.labels is None else ~evaluation.labels
    figure = new_figure(13.5, 4.3)
    panels = figure.subplots(1, len(shown) + 1)
    for axes, (name, values) in zip(panels, shown.items(), strict=False):
        _histogram(axes, values, normal, line_style(name, edge)[0], legend_label(name, edge))
    _realised(panels[-1], {name: values[normal] for name, values in shown.items()}, edge, evaluation.labels is not None)
    return figure


def _histogram(axes: Axes, values: NDArray[np.float64], normal: NDArray[np.bool_], colour: str, name: str) -> None:
    edges = np.linspace(0, 1, _BINS + 1)
    unlabelled = bool(normal.all())
    weights = [np.full(int(kind.sum()), 100 / max(int(kind.sum()), 1)) for kind in (normal, ~normal)]
    text = "samples" if unlabelled else "normal samples"
    axes.hist(values[normal], edges.tolist(), weights=weights[0], color=colour, alpha=0.8, label=text)
    if not unlabelled:
        axes.hist(
            values[~normal],
            edges.tolist(),
            weights=weights[1],
            histtype="step",
            color=ANOMALY,
            linewidth=1.4,
            label="anomalies",
        )
    axes.axhline(100 / _BINS, color=BASELINE, linewidth=1, linestyle="--", label="uniform")
    style_axes(axes, f"p-values: {name}", "p-value", "per cent of samples")
    axes.set_xlim(0, 1)
    top = max(np.histogram(values[normal], edges, weights=weights[0])[0].max() * 1.3, 3 * 100 / _BINS)
    axes.set_ylim(0, top)
    clipped = not unlabelled and np.histogram(values[~normal], edges.tolist(), weights=weights[1])[0].max() > top
    if clipped:
        share = float(np.mean(values[~normal] <= edges[1]))
        text = f"{100 * share:.0f} % of the anomalies have p < {edges[1]:g}"
        axes.annotate(text, (0.985, top * 0.96), fontsize=8, color=ANOMALY, ha="right", va="center")
    axes.legend(fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1, 0.9) if clipped else None)


def _realised(axes: Axes, normals: dict[str, NDArray[np.float64]], edge: str, labelled: bool) -> None:
    """Draw the share flagged against the requested rate; log scales show the low rates that alarms use."""
    count = len(next(iter(normals.values())))
    lowest = max(0.5 / count, 1e-4)
    rates = np.geomspace(lowest, 1.0, 200)
    at = np.geomspace(lowest, 0.999, _BAND_POINTS)
    bands = np.array([clopper_pearson(round(rate * count), count) for rate in at])
    axes.fill_between(
        at,
        np.maximum(bands[:, 0], lowest / 3),
        bands[:, 1],
        color=OTHER,
        alpha=0.45,
        linewidth=0,
        label="95 % interval under uniformity",
    )
    axes.plot(rates, rates, color=BASELINE, linewidth=1, linestyle="--")
    for name, values in normals.items():
        ordered = np.sort(values)
        shares = np.searchsorted(ordered, rates, side="right") / count
        colour, _, width, _ = line_style(name, edge)
        axes.plot(
            rates, np.where(shares > 0, shares, np.nan), color=colour, linewidth=width, label=legend_label(name, edge)
        )
    for rate in FALSE_ALARM_RATES:
        axes.axvline(rate, color=OTHER, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_ylim(lowest / 1.5, 1.2)
    style_axes(
        axes,
        "Realised false alarms" if labelled else "Share flagged",
        "requested rate (p at most)",
        "share of normal samples flagged" if labelled else "share flagged",
    )
    axes.legend(fontsize=8, frameon=False, loc="upper left")
