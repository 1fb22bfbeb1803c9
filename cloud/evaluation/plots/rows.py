"""Bar charts of the features that contribute most to the most anomalous rows of a table."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cloud.evaluation.plots.style import ANOMALY, CLOUD, new_figure, style_axes
from cloud.evaluation.result import Evaluation
from cloud.modalities import View, cloud_modality
from cloud.serving.analysis import FUSED

_MAX_ROWS, _MAX_FEATURES, _MAX_NAME_LENGTH = 6, 8, 24


def draw_contributions(evaluation: Evaluation) -> Figure | None:
    """Draw the shares of the leading features in the rows with the highest fused scores; None for other data."""
    scored = evaluation.scored
    if cloud_modality(evaluation.manifest.modality).view is not View.TABLE or scored.contributions is None:
        return None
    fused = scored.methods[FUSED]
    order = np.argsort(-fused.scores, kind="stable")[:_MAX_ROWS]
    columns = min(3, len(order))
    lines = -(-len(order) // columns)
    figure = new_figure(4.4 * columns, 2.7 * lines)
    panels = np.atleast_1d(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes, index in zip(panels, order, strict=False):
        _draw_row(axes, evaluation, int(index))
    for axes in panels[len(order) :]:
        axes.set_visible(False)
    return figure


def _draw_row(axes: Axes, evaluation: Evaluation, index: int) -> None:
    scored = evaluation.scored
    assert scored.contributions is not None  # the caller checked
    shares = scored.contributions[index]
    leading = np.argsort(-shares, kind="stable")[:_MAX_FEATURES][::-1]
    p_values = scored.methods[FUSED].p_values
    p_text = "" if p_values is None else f", p = {p_values[index]:.1g}"
    anomalous = evaluation.labels is not None and bool(evaluation.labels[index])
    kind = "" if evaluation.labels is None else " (anomaly)" if anomalous else " (normal)"
    axes.barh(
        [_short(scored.channels[at]) for at in leading],
        100 * shares[leading],
        color=ANOMALY if anomalous else CLOUD,
        height=0.7,
    )
    style_axes(
        axes, f"Row {evaluation.data.row_number(int(scored.kept[index]))}{kind}{p_text}", "contribution in per cent", ""
    )
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(100 * float(shares.max()) * 1.08, 1))


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"
