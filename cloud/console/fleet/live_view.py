"""Newest sample of a source as HTML: its picture, the channels of its window, or its row."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from cloud.console.rendering import render
from cloud.console.why.drawings import MAX_FEATURES, view_of
from cloud.console.why.gauges import feature_view
from cloud.console.why.plot import plot_view
from cloud.evidence.bundle_facts import BundleFacts
from cloud.evidence.series import MAX_CHANNELS, Channel, SeriesPlot
from cloud.evidence.standing import NormalRange, normal_ranges
from cloud.evidence.table import features_of
from cloud.live_views.desk import LiveView
from cloud.modalities import View
from cloud.words import p_value_exact, p_value_words
from shared.live_views import ShownSample

ROUTE_WORDS = {  # whether a sample is sent is another question: budget and mode decide, too
    "accept": "not forwarded as suspicious",
    "forward": "suspicious",
    "alarm": "alarm",
    "audit": "not suspicious, drawn at random for an audit",
}


def live_view_html(view: LiveView, source_id: str, facts: BundleFacts | None) -> str:
    """Return the outcome of a live view; `facts` are those of the bundle that screened the sample, None if unknown."""
    sample = view.sample
    if sample is None:
        return render("fleet/live_view.html", state=view.state, words=view.words, sample=None)
    screening = sample.screening
    return render(
        "fleet/live_view.html",
        state=view.state,
        words=view.words,
        source_id=source_id,
        sample=sample,
        p_value=p_value_words(screening.p_value, screening.extrapolated),
        p_value_exact=p_value_exact(screening.p_value, screening.extrapolated),
        route=ROUTE_WORDS[screening.route],
        picture=base64.b64encode(view.picture).decode(),
        plot=_window_plot(sample, facts) if view_of(sample.modality) is View.TRACES else None,
        row=_row(sample, facts) if view_of(sample.modality) is View.TABLE else None,
    )


def _window_plot(sample: ShownSample, facts: BundleFacts | None) -> dict[str, Any]:
    """Return the plot of a window as JSON values; its axis counts all time points, also those that were left out."""
    view = plot_view(_plot(sample, facts))
    return view | {"ticks": [tick | {"row": tick["row"] * sample.every} for tick in view["ticks"]]}


def _names(facts: BundleFacts | None) -> Sequence[str]:
    return facts.spec.channels if facts is not None else ()


def _plot(sample: ShownSample, facts: BundleFacts | None) -> SeriesPlot:
    """Return the plot of a window: channels that leave their normal range first, then in the order of the bundle."""
    values, names = sample.values.astype(np.float64), _names(facts)
    normal = normal_ranges(facts.ranges if facts is not None else None)
    labels = [names[place] if place < len(names) else f"channel {place + 1}" for place in range(values.shape[1])]
    distances = [_distance(values[:, place], normal.get(label)) for place, label in enumerate(labels)]
    order = sorted(range(len(labels)), key=lambda place: (-distances[place], place))[:MAX_CHANNELS]
    channels = tuple(
        Channel(labels[place], None, normal.get(labels[place]), values[:, place], None, None) for place in order
    )
    return SeriesPlot(0, len(values), channels, len(labels), None, sample.captured_at_s, 0)


def _distance(values: np.ndarray[Any, np.dtype[np.float64]], normal: NormalRange | None) -> float:
    """Return the largest distance of readings (length,) from the normal range, in deviations."""
    finite = values[np.isfinite(values)]
    if normal is None or not len(finite):
        return 0.0
    return max(normal.deviations(float(finite.min())), normal.deviations(float(finite.max())))


def _row(sample: ShownSample, facts: BundleFacts | None) -> dict[str, Any]:
    """Return the values of the table of a row's features."""
    features = features_of(np.asarray(sample.values, np.float32), _names(facts), {}, facts)
    return {
        "features": [feature_view(feature) for feature in features[:MAX_FEATURES]],
        "features_total": len(features),
        "has_normal": any(feature.normal is not None for feature in features),
        "has_typical": any(feature.typical is not None for feature in features),
        "contributions": (),
    }
