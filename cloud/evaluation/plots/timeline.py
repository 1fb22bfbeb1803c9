"""Timelines of a series: surprise of each point, labelled spans, and the channels that contribute most."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cloud.evaluation.plots.style import (
    ANOMALY,
    BASELINE,
    CLOUD,
    EDGE,
    OTHER,
    legend_label,
    line_style,
    new_figure,
    style_axes,
)
from cloud.evaluation.result import Evaluation
from cloud.evaluation.series import point_scores
from cloud.evaluation.vus import ranges_of
from cloud.serving.analysis import FUSED

_COLUMNS = 1400  # points of a timeline; longer series show the maximum of each column
_MAX_SPANS, _MAX_CHANNELS = 3, 3
_CONTEXT = 1.0  # margin before and after a span, in lengths of the span


def draw_timeline(evaluation: Evaluation) -> Figure | None:
    """Draw -log10 p of the fused verdict and of the edge over the whole series; None for other data."""
    if evaluation.data.starts is None:
        return None
    edge = evaluation.scored.edge
    figure = new_figure(13, 5)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(panels, (FUSED, edge), strict=True):
        surprise = _surprise(evaluation, name)
        at, highest = _columns(surprise)
        axes.fill_between(at, highest, color=line_style(name, edge)[0], alpha=0.35, linewidth=0)
        axes.plot(at, highest, color=line_style(name, edge)[0], linewidth=0.8)
        axes.axhline(2, color=BASELINE, linewidth=0.9, linestyle="--")
        axes.annotate(
            "p = 0.01",
            (len(surprise), 2),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            color=BASELINE,
            va="center",
            annotation_clip=False,
        )
        _shade(axes, evaluation, len(surprise))
        style_axes(axes, legend_label(name, edge), "time point" if name == edge else "", r"surprise, $-\log_{10}p$")
        axes.set_xlim(0, len(surprise))
        axes.set_ylim(0, max(float(highest.max()) * 1.08, 3))
    return figure


def draw_spans(evaluation: Evaluation) -> Figure | None:
    """Draw the most surprising spans: their surprise and their leading channels; None for other data."""
    data = evaluation.data
    if data.starts is None or data.readings is None or evaluation.scored.contributions is None:
        return None
    surprise = _surprise(evaluation, FUSED)
    spans = _spans(evaluation, surprise)
    if not spans:
        return None
    figure = new_figure(4.6 * len(spans), 6)
    panels = figure.subplots(_MAX_CHANNELS + 1, len(spans), squeeze=False, sharex="col")
    for column, (start, end) in enumerate(spans):
        _draw_span(panels[:, column], evaluation, surprise, start, end)
    return figure


def _draw_span(
    panels: NDArray[np.object_], evaluation: Evaluation, surprise: NDArray[np.float64], start: int, end: int
) -> None:
    data, scored = evaluation.data, evaluation.scored
    assert data.readings is not None  # the caller checked
    margin = max(round((end - start) * _CONTEXT), 2 * data.window_length)
    low, high = max(start - margin, 0), min(end + margin, len(surprise))
    shares = _shares(evaluation, start, end)
    leading = np.argsort(-shares, kind="stable")[:_MAX_CHANNELS]
    time = np.arange(low, high)
    panels[0].fill_between(time, surprise[low:high], color=CLOUD, alpha=0.35, linewidth=0)
    panels[0].plot(time, surprise[low:high], color=CLOUD, linewidth=1)
    style_axes(panels[0], f"points {start + 1} to {end}", "", r"$-\log_{10}p$")
    for axes, channel in zip(panels[1:], leading, strict=False):
        axes.plot(time, data.readings[low:high, channel], color=EDGE, linewidth=1)
        style_axes(axes, f"{scored.channels[channel]}, {100 * shares[channel]:.0f} %", "", "")
        axes.title.set_fontweight("normal")
    for axes in panels[1 + len(leading) :]:
        axes.set_visible(False)
    for axes in panels:
        _shade(axes, evaluation, len(surprise))
        axes.set_xlim(low, high)
    panels[len(leading)].set_xlabel("time point", fontsize=9)


def _shares(evaluation: Evaluation, start: int, end: int) -> NDArray[np.float64]:
    """Return the contribution (channels,) of each channel between two time points.

    It is computed from the cloud's maps, which resolve time within a window, or from the contributions of whole windows
    if there are no maps.
    """
    data, scored = evaluation.data, evaluation.scored
    assert data.starts is not None  # the caller checked
    assert scored.contributions is not None
    starts = data.starts[scored.kept]
    touching = np.flatnonzero((starts < end) & (starts + data.window_length > start))
    maps = scored.methods[FUSED].maps
    if maps is not None:
        inside = [maps[index][max(start - starts[index], 0) : end - starts[index]] for index in touching]
        weights = np.square(np.concatenate(inside)).sum(axis=0)
        if weights.sum() > 0:
            return np.asarray(weights / weights.sum())
    return np.asarray(scored.contributions[touching].mean(axis=0))


def _spans(evaluation: Evaluation, surprise: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the most surprising spans in order of time: labelled spans, or spans with p < 0.01 without labels."""
    points = evaluation.data.point_labels
    flags = points if points is not None and points.any() and not points.all() else surprise >= 2
    spans = [(int(start), int(end)) for start, end in zip(*ranges_of(flags), strict=True)]
    most_surprising = sorted(spans, key=lambda span: -float(surprise[span[0] : span[1]].max()))[:_MAX_SPANS]
    return sorted(most_surprising)


def _surprise(evaluation: Evaluation, method: str) -> NDArray[np.float64]:
    """Return -log10 p (time points,): the mean over the windows that contain each point."""
    data, scored = evaluation.data, evaluation.scored
    method_scores = scored.methods[method]
    assert data.starts is not None  # the callers checked
    assert data.readings is not None
    p_values = method_scores.p_values if method_scores.p_values is not None else np.ones(len(method_scores.scores))
    starts = data.starts[scored.kept]
    return point_scores(-np.log10(p_values), starts, data.window_length, len(data.readings))


def _columns(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions and heights to draw, with the maximum of each column for a long series."""
    step = max(1, -(-len(values) // _COLUMNS))
    padded = np.concatenate([values, np.full(-len(values) % step, values[-1])])
    return np.arange(0, len(values), step, dtype=np.float64), padded.reshape(-1, step).max(axis=1)


def _shade(axes: Axes, evaluation: Evaluation, length: int) -> None:
    """Shade the labelled spans in the background, with a visible minimum width."""
    points = evaluation.data.point_labels
    if points is None:
        return
    for start, end in zip(*ranges_of(points), strict=True):
        axes.axvspan(start, max(end, start + length / 2000), color=ANOMALY, alpha=0.16, linewidth=0, zorder=0)
    axes.axhline(0, color=OTHER, linewidth=0.6)
