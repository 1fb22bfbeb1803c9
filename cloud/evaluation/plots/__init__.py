"""Plots of an evaluation as PNG files: curves, calibration, and contributions of features and pixels."""

from pathlib import Path

from cloud.evaluation.plots.calibration import draw_p_values
from cloud.evaluation.plots.curves import draw_curves
from cloud.evaluation.plots.heatmaps import draw_heatmaps
from cloud.evaluation.plots.rows import draw_contributions
from cloud.evaluation.plots.style import save
from cloud.evaluation.plots.timeline import draw_spans, draw_timeline
from cloud.evaluation.result import Evaluation
from shared.diffusion.training import Progress
from shared.errors import DataError

_PLOTS = {
    "curves.png": draw_curves,
    "p_values.png": draw_p_values,
    "timeline.png": draw_timeline,
    "spans.png": draw_spans,
    "heatmaps.png": draw_heatmaps,
    "contributions.png": draw_contributions,
}


def draw_all(evaluation: Evaluation, folder: Path, progress: Progress) -> list[Path]:
    """Draw all plots that suit the data into `folder` and return their files in order.

    The folder is created if necessary. Raises DataError if it cannot be written.
    """
    drawn = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, (name, draw) in enumerate(_PLOTS.items()):
            figure = draw(evaluation)
            if figure is not None:
                drawn.append(save(figure, folder / name))
            progress((done + 1) / len(_PLOTS))
    except OSError as error:
        raise DataError(f"{folder}: plots cannot be written ({error}). Give --plots another folder.") from None
    return drawn
