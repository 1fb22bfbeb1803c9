"""Pictures of found and missed corrupted copies, one file for each kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cloud.training.judgement.measure import Corrupted
from shared.bundle import InputSpec
from shared.errors import FileNotWrittenError

PER_ROW = 4
_FOUND, _MISSED, _TEXT, _DPI = "#1f4e8c", "#c0262d", "#24292e", 110


def draw_copies(copies: Mapping[str, Corrupted], rate: float, spec: InputSpec, folder: Path) -> list[Path]:
    """Draw copies that the fused verdict finds (p <= `rate`) and misses, and return the files.

    Raises FileNotWrittenError if the folder cannot be written to.
    """
    drawn = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, judged in copies.items():
            path = folder / f"corrupted-{kind.replace(' ', '-')}.png"
            _figure(kind, judged, rate, spec).savefig(path, dpi=_DPI)
            drawn.append(path)
    except OSError as error:
        raise FileNotWrittenError(f"{folder}: pictures cannot be written ({error.strerror or error}).") from None
    return drawn


def _figure(kind: str, judged: Corrupted, rate: float, spec: InputSpec) -> Figure:
    found = judged.fused <= rate
    figure = Figure(figsize=(2.6 * PER_ROW, 5.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    count = int(found.sum())
    figure.suptitle(f"{kind}: {count} of {len(found)} found at p <= {rate:.2g}", fontsize=11, color=_TEXT)
    panels = figure.subplots(2, PER_ROW, squeeze=False)
    for row, (word, chosen, colour) in enumerate((("found", found, _FOUND), ("missed", ~found, _MISSED))):
        positions = np.flatnonzero(chosen)[:PER_ROW]
        for column, axes in enumerate(panels[row]):
            if column >= len(positions):
                axes.set_axis_off()
                continue
            position = positions[column]
            _draw(axes, judged.samples[position], spec)
            axes.set_title(f"{word}, p = {judged.fused[position]:.2g}", fontsize=8, color=colour)
    return figure


def _draw(axes: Axes, sample: NDArray[Any], spec: InputSpec) -> None:
    """Draw one sample: an image, the last frame of a clip, the traces of a window, or the values of a row."""
    if sample.ndim >= 3:
        axes.imshow(sample if sample.ndim == 3 else sample[-1])
        axes.set_axis_off()
        return
    if sample.ndim == 2:
        centred = sample - np.nanmean(sample, axis=0)
        axes.plot(centred / np.maximum(np.nanstd(sample, axis=0), 1e-9), linewidth=0.8)
        axes.set_xlabel("time point", fontsize=7)
    else:
        axes.bar(np.arange(len(sample)), sample, color=_FOUND)
        axes.set_xlabel(", ".join(spec.channels[:3]) + (", ..." if len(spec.channels) > 3 else ""), fontsize=7)
    axes.tick_params(labelsize=6)
