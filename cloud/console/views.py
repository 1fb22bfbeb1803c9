"""Rows of the store as JSON for the browser: figures, and the same figures in words.

Text from a device is not escaped here; the templates escape it.
"""

import math
from typing import Any

from pydantic import BaseModel, create_model

from cloud.console.why.drawings import thumbnail
from cloud.evidence.latency import latency_of
from cloud.store.fleet_queries import FleetSummary
from cloud.store.verdict_columns import VerdictRow, api_fields, finite_or_none, published
from cloud.words import (
    NO_FIGURE,
    bytes_words,
    count_words,
    duration_words,
    p_value_exact,
    p_value_words,
    share_words,
)
from shared.samples import Decision, Route

NOT_JUDGED = "no p-value: the cloud could not judge the sample"


class PValueView(BaseModel):
    """A p-value as a figure, in words, and as the length of a bar (0 to 1).

    The figure is null where the cloud could not judge the sample.
    """

    p_value: float | None
    extrapolated: bool
    words: str
    exact: str
    rarity: float


class EdgeView(PValueView):
    """The screener's p-value and score; the score is null where it was not a number."""

    score: float | None


_VIEW_FIELDS: dict[str, Any] = {name: (field.annotation, ...) for name, field in api_fields("row").items()}
VerdictView: Any = create_model(
    "VerdictView",
    **_VIEW_FIELDS,
    edge=(EdgeView, ...),
    fused=(PValueView, ...),
    latency_s=(float, ...),
    latency=(str, ...),
    latency_parts=(str, ...),
    thumbnail=(dict[str, Any], ...),
)
VerdictPageView: Any = create_model(
    "VerdictPageView", verdicts=(list[VerdictView], ...), older=(str | None, ...), newer=(str | None, ...)
)


def row_view(row: VerdictRow) -> dict[str, Any]:
    """Return one verdict as in the table and in `/api/verdicts`."""
    latency = latency_of(row.captured_at_s, row.sample_id, row.received_at_s, row.judged_at_s)
    return published(row, "row") | {
        "edge": p_value_view(row.edge_p_value, row.edge_extrapolated) | {"score": finite_or_none(row.edge_score)},
        "fused": _fused(row),
        "latency_s": latency.seconds,
        "latency": latency.words,
        "latency_parts": latency.parts,
        "thumbnail": thumbnail(row),
    }


def headline(row: VerdictRow) -> str:
    """Return the opinions of edge and cloud in one sentence."""
    edge = p_value_words(row.edge_p_value, row.edge_extrapolated)
    cloud = _fused(row)["words"]
    first = {
        Route.FORWARD: f"The edge forwarded it as suspicious ({edge})",
        Route.ALARM: f"The edge raised an alarm ({edge})",
        Route.AUDIT: f"The edge accepted it ({edge}) and sent it as an audit",
        Route.ACCEPT: f"The edge accepted it ({edge})",
    }[row.route]
    if row.decision is Decision.UNDECIDED:
        if row.p_value is not None:  # only a crop of the image was sent
            return f"{first}; the cloud finds nothing anomalous in the crop that was sent ({cloud}): review needed."
        return f"{first}; the cloud could not judge it: review needed."
    if row.decision is Decision.NORMAL:
        return f"{first}; the cloud finds it normal ({cloud})."
    missed = row.route in (Route.AUDIT, Route.ACCEPT)
    return f"{first}; the cloud finds it anomalous ({cloud})" + (": missed by the edge." if missed else ".")


def summary_view(summary: FleetSummary, now_s: float) -> dict[str, Any]:
    """Return the figures at the top of every page."""
    counters = summary.counters
    waits_s = max(0.0, now_s - summary.oldest_pending_at_s) if summary.oldest_pending_at_s is not None else 0.0
    return {
        "now_s": now_s,
        "devices": summary.devices,
        "reporting": summary.reporting,
        "last_heartbeat_at_s": summary.last_heartbeat_at_s,
        "screened": count_words(counters.samples_screened),
        "sent": count_words(counters.samples_sent),
        "sent_share": share_words(counters.samples_sent, counters.samples_screened),
        "upload_ratio": share_words(counters.bytes_uploaded, counters.bytes_screened),
        "uploaded": f"{bytes_words(counters.bytes_uploaded)} of {bytes_words(counters.bytes_screened)}",
        "pending": count_words(summary.pending),
        "pending_age": duration_words(waits_s) if summary.pending else "",
        "spooled": count_words(summary.spool_samples),
        "dropped": counters.samples_dropped,
        "silent": summary.devices - summary.reporting,
        "verdicts": count_words(sum(summary.decisions.values())),
        "anomalous": count_words(summary.decisions.get(Decision.ANOMALOUS, 0)),
        "undecided": summary.decisions.get(Decision.UNDECIDED, 0),
    }


def p_value_view(value: float, extrapolated: bool) -> dict[str, Any]:
    """Return a p-value as in `PValueView`."""
    return {
        "p_value": finite_or_none(value),
        "extrapolated": extrapolated,
        "words": p_value_words(value, extrapolated),
        "exact": p_value_exact(value, extrapolated),
        "rarity": _rarity(value),
    }


def _fused(row: VerdictRow) -> dict[str, Any]:
    """Return the fused p-value; without a figure where the cloud could not judge the sample."""
    if row.p_value is not None:
        shown = p_value_view(row.p_value, row.extrapolated)
        if row.p_value_is_bound:
            shown |= {"words": f"at most {shown['words']}", "exact": f"{shown['exact']} or less; {row.reason}"}
        return shown
    return {"p_value": None, "extrapolated": False, "words": NO_FIGURE, "exact": NOT_JUDGED, "rarity": 0.0}


def _rarity(p_value: float) -> float:
    """Return the length of the bar of a p-value, logarithmic and full at 1 in a billion."""
    return round(min(-math.log10(p_value) / 9, 1.0), 3) if 0 < p_value <= 1 else 0.0
