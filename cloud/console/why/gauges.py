"""Small drawings beside figures: a value beside its normal range, and the verdicts of a source over time."""

import math
from collections.abc import Sequence
from typing import Any

from cloud.evidence.history import SourceVerdict
from cloud.evidence.standing import Side, figure
from cloud.evidence.table import Feature
from cloud.store.verdict_columns import finite_or_none
from cloud.words import p_value_words

GAUGE_WIDTH, GAUGE_HEIGHT = 200.0, 16.0
STRIP_WIDTH, STRIP_HEIGHT = 1000.0, 56.0
MAX_RARITY = 6.0  # powers of ten: the height of a bar
_BAND = (0.3, 0.7)  # of the gauge's width


def feature_view(feature: Feature) -> dict[str, Any]:
    """Return a feature with its value, its normal range and the gauge of both."""
    normal, typical = feature.normal, feature.typical
    width = normal.width if normal is not None else 0.0
    return {
        "name": feature.name,
        "value": figure(feature.value, width),
        "number": finite_or_none(feature.value),
        "share": finite_or_none(feature.share),
        "side": feature.side.value,
        "normal": None if normal is None else {"low": normal.low, "high": normal.high, "words": normal.words},
        "typical": None if typical is None else [figure(value, width) for value in typical],
        "deviations": _deviations(feature),
        "gauge": _gauge(feature),
    }


def strip_view(history: Sequence[SourceVerdict]) -> dict[str, Any]:
    """Return the bars of a source's verdicts, oldest first, and their counts."""
    step = STRIP_WIDTH / max(1, len(history))
    bars = [
        {
            "x": f"{place * step:.1f}",
            "width": f"{max(1.5, step * 0.78):.1f}",
            "y": f"{STRIP_HEIGHT - _bar(item.p_value):.1f}",
            "height": f"{_bar(item.p_value):.1f}",
            "sample_id": str(item.sample_id),
            "judged_at_s": item.judged_at_s,
            "p_value": finite_or_none(item.p_value),
            "decision": item.decision.value,
            "label": item.label.value if item.label is not None else None,
            "is_this": item.is_this,
            "words": "not judged" if item.p_value is None else p_value_words(item.p_value, False),
        }
        for place, item in enumerate(history)
    ]
    odd = sum(item.decision == "anomalous" for item in history)
    return {"bars": bars, "count": len(history), "anomalous": odd}


def _bar(p_value: float | None) -> float:
    """Return the height of a bar: the rarity of the verdict, full height where it could not be judged."""
    if p_value is None:
        return STRIP_HEIGHT
    rarity = -math.log10(p_value) / MAX_RARITY if 0 < p_value <= 1 else float(p_value == 0)
    return 3.0 + min(1.0, rarity) * (STRIP_HEIGHT - 3.0)


def _deviations(feature: Feature) -> str:
    """Return how far a value lies outside its normal range, in words; empty within it."""
    if feature.normal is None or feature.side not in (Side.BELOW, Side.ABOVE):
        return ""
    distance = feature.normal.deviations(feature.value)
    if not math.isfinite(distance) or distance > 1000:
        return "far more than 1000 deviations"
    return f"{distance:.2g} deviations" if distance < 10 else f"{distance:.0f} deviations"


def _gauge(feature: Feature) -> dict[str, str] | None:
    """Return the places of band, typical values and value in a box of GAUGE_WIDTH; None without a normal range."""
    normal = feature.normal
    if normal is None:
        return None
    band = [GAUGE_WIDTH * share for share in _BAND]
    places = {"band_x": f"{band[0]:.1f}", "band_width": f"{band[1] - band[0]:.1f}"}
    if feature.typical is not None:
        first, last = _place(feature, feature.typical[0]), _place(feature, feature.typical[2])
        places |= {"typical_x": f"{first:.1f}", "typical_width": f"{max(2.0, last - first):.1f}"}
    if math.isfinite(feature.value):
        places["x"] = f"{_place(feature, feature.value):.1f}"
    return places


def _place(feature: Feature, value: float) -> float:
    """Return the place of a value: linear within the range, and ever closer to the end beyond it."""
    normal = feature.normal
    assert normal is not None
    first, last = _BAND
    if normal.low <= value <= normal.high:
        share = (value - normal.low) / normal.width if normal.width > 0 else 0.5
        return GAUGE_WIDTH * (first + share * (last - first))
    distance = normal.deviations(value) if normal.scale > 0 else 10.0
    beyond = first * (1 - 1 / (1 + distance / 2)) * 0.96 + 0.01
    return GAUGE_WIDTH * (first - beyond if value < normal.low else last + beyond)
