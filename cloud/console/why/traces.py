"""Traces of the channels of a window: points to draw and spans to shade, at screen resolution."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.pictures import MAP_QUIET

MAX_COLUMNS = 300
SPARKLINE_COLUMNS = 60
SPARKLINE_CHANNELS = 3
_WIDTH, _HEIGHT, _MARGIN = 128, 80, 6  # of a sparkline, in SVG units
_LINE, _OTHER_LINES, _SHADE = "#4b84d6", "#8b97a6", "#e5484d"


def thinned(values: NDArray[np.float32], columns: int) -> list[tuple[float, float | None]]:
    """Return at most two points per column, its lowest and highest value; None breaks the line.

    `values`: (length,). Returns (time point, value) in order of time.
    """
    if len(values) <= 2 * columns:
        return [(float(time), _finite(value)) for time, value in enumerate(values)]
    points: list[tuple[float, float | None]] = []
    edges = np.linspace(0, len(values), columns + 1).astype(int)
    for start, stop in itertools.pairwise(edges):
        part = values[start:stop]
        if not np.isfinite(part).any():
            points.append((float(start), None))
            continue
        ends = sorted({int(np.nanargmin(part)), int(np.nanargmax(part))})
        points.extend((float(start + place), _finite(part[place])) for place in ends)
    return points


def shaded(levels: NDArray[np.uint8], columns: int) -> list[tuple[float, float, float]]:
    """Return spans above the quiet level as (start, stop, opacity in 0..1). `levels`: (length,) uint8."""
    edges = np.linspace(0, len(levels), min(columns, len(levels)) + 1).astype(int)
    spans: list[tuple[float, float, float]] = []
    for start, stop in itertools.pairwise(edges):
        level = int(levels[start:stop].max())
        opacity = round(max(level - MAP_QUIET, 0) / (255 - MAP_QUIET), 1)
        if opacity == 0:
            continue
        if spans and spans[-1][1] == start and spans[-1][2] == opacity:
            spans[-1] = (spans[-1][0], float(stop), opacity)
        else:
            spans.append((float(start), float(stop), opacity))
    return spans


def sparkline_svg(values: NDArray[np.float32], cells: NDArray[np.uint8] | None) -> bytes:
    """Return a small SVG of a window (length, channels): its most anomalous channels, anomalous span shaded.

    It holds numbers only and no text of the sample.
    """
    length, count = values.shape
    usable = cells if cells is not None and cells.shape == values.shape else None
    weights = usable.astype(np.float64).mean(axis=0) if usable is not None else np.zeros(count)
    order = np.argsort(-weights, kind="stable")[:SPARKLINE_CHANNELS]
    step = (_WIDTH - 2 * _MARGIN) / max(length - 1, 1)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">']
    if usable is not None:
        for start, stop, opacity in shaded(usable.max(axis=1), SPARKLINE_COLUMNS):
            x, width = _MARGIN + (start - 0.5) * step, (stop - start) * step
            parts.append(
                f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{_HEIGHT}" fill="{_SHADE}" '
                f'fill-opacity="{0.15 + 0.35 * opacity:.2f}"/>'
            )
    for rank, channel in reversed(list(enumerate(order))):
        colour, width = (_LINE, 3) if rank == 0 else (_OTHER_LINES, 1.5)
        path = _path(thinned(values[:, channel], SPARKLINE_COLUMNS), step)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return "".join([*parts, "</svg>"]).encode()


def _path(points: Sequence[tuple[float, float | None]], step: float) -> str:
    """Return SVG path data; a missing value breaks the line."""
    known = [value for _, value in points if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    commands, is_drawing = [], False
    for time, value in points:
        if value is None:
            is_drawing = False
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        x, y = _MARGIN + time * step, _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)
        commands.append(f"{'L' if is_drawing else 'M'}{x:.1f} {y:.1f}")
        is_drawing = True
    return "".join(commands)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
