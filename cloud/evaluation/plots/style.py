"""Common style of all plots: colours with one meaning each, line styles, axes and legend labels."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cloud.serving.analysis import FUSED

CLOUD, EDGE, BASELINE, OTHER = "#1f4e8c", "#d1730f", "#5c6670", "#c3c9d0"
ANOMALY, GRID, TEXT = "#c0262d", "#e6e9ec", "#24292e"
_DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure with constrained layout; `width` and `height` are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG and return its path."""
    figure.savefig(path, dpi=_DPI)
    return path


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title and axis labels, draw a light grid, and hide the top and right spines."""
    axes.set_title(title, loc="left", fontsize=10, color=TEXT, fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=TEXT)
    axes.set_ylabel(y, fontsize=9, color=TEXT)
    axes.tick_params(labelsize=8, colors=TEXT, length=3)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(OTHER)


def line_style(method: str, edge: str) -> tuple[str, str, float, int]:
    """Return colour, line style, width and layer of a method's line; `edge`: the artefact that devices run."""
    if method == FUSED:
        return CLOUD, "-", 2.2, 5
    if method == edge:
        return EDGE, "-", 1.8, 4
    if method.startswith("baseline_"):
        return BASELINE, "--" if method.endswith("knn") else ":", 1.3, 3
    return OTHER, "-", 1.0, 2


def has_own_legend_entry(method: str, edge: str) -> bool:
    """Return whether the method has a legend entry of its own; all others are grey and share one entry."""
    return method in (FUSED, edge) or method.startswith("baseline_")


def legend_label(method: str, edge: str) -> str:
    """Return the name of a method in a legend."""
    if method == FUSED:
        return "fused (cloud)"
    return f"{method.removeprefix('screener_')} (edge)" if method == edge else method.replace("_", " ")


def ordered_methods(methods: Iterable[str], edge: str) -> list[str]:
    """Return methods in order of importance: fused, edge, baselines, others."""
    rank = {FUSED: 0, edge: 1}
    return sorted(methods, key=lambda name: (rank.get(name, 2 if name.startswith("baseline_") else 3), name))
