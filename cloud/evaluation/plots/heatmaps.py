"""Heat maps: images and the cloud's anomaly maps, on the scale of normal images."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from cloud.evaluation.images import image_blocks
from cloud.evaluation.pixels import enlarge
from cloud.evaluation.plots.style import ANOMALY, TEXT, new_figure
from cloud.evaluation.result import Evaluation
from cloud.serving.analysis import FUSED
from cloud.serving.maps import NORMAL_TOP
from cloud.training.samples.images import read_mask

_IMAGES_PER_KIND = 4
_SIDE_PIXELS = 360


def draw_heatmaps(evaluation: Evaluation) -> Figure | None:
    """Draw anomalous and typical normal images, each with its map; None for other data."""
    data, fused = evaluation.data, evaluation.scored.methods[FUSED]
    if not data.images or fused.maps is None:
        return None
    chosen = _choose(fused.scores, evaluation.labels)
    figure = new_figure(2.3 * len(chosen) + 0.5, 5.1)
    panels = figure.subplots(2, len(chosen), squeeze=False)
    shown: AxesImage | None = None
    for column, index in enumerate(chosen):
        position = int(evaluation.scored.kept[index])
        pixels = next(iter(image_blocks([data.images[position]], data.pixel_range)))[0]
        image = _small(pixels)
        shown = _draw_pair(panels[:, column], image, fused.maps[index])
        _title(panels[0, column], evaluation, index)
        mask = data.masks[position] if data.masks else None
        if mask is not None:
            outline = enlarge(read_mask(mask).astype(np.float64), image.shape[:2])
            panels[0, column].contour(outline, [0.5], colors=[ANOMALY], linewidths=1.2)
    assert shown is not None  # there is at least one image
    bar = figure.colorbar(shown, ax=panels[1, :].tolist(), location="right", shrink=0.85, ticks=[0, NORMAL_TOP, 255])
    bar.ax.set_yticklabels(["typical", "top of\nnormal", "far\noutside"], fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _choose(scores: NDArray[np.float64], labels: NDArray[np.bool_] | None) -> list[int]:
    """Return the positions of the images to show.

    With labels: anomalies spread over the ranking, and normal images around the median. Without labels: the images with
    the highest scores, and images around the median.
    """
    order = np.argsort(-scores, kind="stable")
    if labels is None:
        top = [int(index) for index in order[:_IMAGES_PER_KIND]]
        return top + [index for index in _around_median(order) if index not in top]
    anomalies = order[labels[order]]
    # Spread over the ranking, from the easiest to the hardest: the easiest alone would look too good.
    spread = np.unique(np.linspace(0, len(anomalies) - 1, _IMAGES_PER_KIND, dtype=np.intp))
    return [*anomalies[spread].tolist(), *_around_median(order[~labels[order]])]


def _around_median(order: NDArray[np.intp]) -> list[int]:
    middle = max(0, len(order) // 2 - _IMAGES_PER_KIND // 4)
    return [int(index) for index in order[middle : middle + _IMAGES_PER_KIND // 2]]


def _draw_pair(panels: NDArray[np.object_], image: NDArray[np.uint8], values: NDArray[np.float64]) -> AxesImage:
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(image)
    panels[1].imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=600)  # dimmed, so that the heat map stands out
    heat = enlarge(values, image.shape[:2])
    drawn: AxesImage = panels[1].imshow(
        heat, cmap="inferno", vmin=0, vmax=255, alpha=np.clip(heat / NORMAL_TOP, 0.25, 0.9)
    )
    return drawn


def _title(axes: Axes, evaluation: Evaluation, index: int) -> None:
    path = evaluation.data.images[int(evaluation.scored.kept[index])]
    p_values = evaluation.scored.methods[FUSED].p_values
    kind = "" if evaluation.labels is None else f"{path.parent.name}, "
    text = "" if p_values is None else f"{kind}p = {p_values[index]:.2g}"
    anomalous = evaluation.labels is not None and bool(evaluation.labels[index])
    axes.set_title(f"{path.name[:22]}\n{text}", fontsize=8, color=ANOMALY if anomalous else TEXT, loc="left")


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from shared.images import resize

    scale = min(1.0, _SIDE_PIXELS / max(pixels.shape[:2]))
    return resize(pixels, max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
