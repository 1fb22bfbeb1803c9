"""The evidence behind one verdict as JSON values, for exports and the HTTP API: figures as numbers, times in UTC."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.facts import facts_of, is_baseline, paragraph_of
from cloud.evidence.latency import stages_of
from cloud.evidence.reading import Evidence
from cloud.evidence.series import Channel, SeriesPlot, channel_words, side_of
from cloud.evidence.standing import NormalRange
from cloud.evidence.table import Feature
from cloud.moments import rfc3339
from cloud.store.verdict_columns import finite_or_none, opinions_to_json


def document_of(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence; a figure that is not a number is None."""
    record, facts = evidence.record, facts_of(evidence)
    times = record.captured_at_s, record.sample_id, record.received_at_s, record.judged_at_s
    return {
        "sample_id": str(record.sample_id),
        "device_id": record.device_id,
        "source_id": record.source_id,
        "origin": record.origin,
        "modality": record.modality.value,
        "route": record.route.value,
        "decision": record.decision.value,
        "reason": record.reason,
        "captured_at": rfc3339(record.captured_at_s),
        "received_at": rfc3339(record.received_at_s),
        "judged_at": rfc3339(record.judged_at_s),
        "paragraph": paragraph_of(facts),
        "facts": [{"name": fact.name, "text": fact.text} for fact in facts],
        "gaps": list(evidence.gaps),
        **_opinions(evidence),
        "stages": [{"name": stage.name, "seconds": stage.seconds} for stage in stages_of(*times)],
        **_around(evidence),
        "region": _region(evidence),
        "features": [_feature(each) for each in evidence.features],
        "series": None if evidence.series is None else _series(evidence.series),
    }


def _around(evidence: Evidence) -> dict[str, Any]:
    """Return the labels, and the verdicts of the source and those like it."""
    return {
        "labels": [
            {
                "label": each.label.value,
                "defect_class": each.defect_class or None,
                "author": each.author,
                "note": each.note,
                "at": rfc3339(each.at_s),
            }
            for each in evidence.labels
        ],
        "history": [
            {
                "sample_id": str(each.sample_id),
                "judged_at": rfc3339(each.judged_at_s),
                "p_value": finite_or_none(each.p_value),
                "decision": each.decision.value,
                "label": each.label.value if each.label is not None else None,
            }
            for each in evidence.history
        ],
        "similar": [
            {
                "sample_id": str(each.row.sample_id),
                "likeness": each.likeness,
                "decision": each.row.decision.value,
                "label": each.label.value if each.label is not None else None,
            }
            for each in evidence.similar
        ],
    }


def _opinions(evidence: Evidence) -> dict[str, Any]:
    record = evidence.record
    given = zip(opinions_to_json(record.opinions), record.opinions, strict=True)
    return {
        "edge": {
            "score": finite_or_none(record.edge_score),
            "p_value": finite_or_none(record.edge_p_value),
            "extrapolated": record.edge_extrapolated,
            "bundle_id": record.edge_bundle_id,
            "artefact": record.artefact,
            "calibration_id": record.calibration_id,
        },
        "cloud": {
            "p_value": finite_or_none(record.p_value),
            "extrapolated": record.extrapolated,
            "is_upper_bound": record.p_value_is_bound,
            "bundle_id": record.bundle_id,
        },
        "opinions": [values | {"is_baseline": is_baseline(opinion, evidence)} for values, opinion in given],
        "contributions": [{"name": name, "share": finite_or_none(share)} for name, share in record.contributions],
    }


def _region(evidence: Evidence) -> dict[str, Any] | None:
    region = evidence.region
    return None if region is None else {"place": region.words, "share": region.share, "box": list(region.box)}


def _normal(normal: NormalRange | None) -> dict[str, float] | None:
    return None if normal is None else {"low": normal.low, "high": normal.high}


def _feature(feature: Feature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "value": finite_or_none(feature.value),
        "share": finite_or_none(feature.share),
        "normal": _normal(feature.normal),
        "side": feature.side.value,
        "typical": None if feature.typical is None else list(feature.typical),
    }


def _series(plot: SeriesPlot) -> dict[str, Any]:
    return {
        "window_begin": plot.begin,
        "window_length": plot.length,
        "row_interval_s": plot.interval_s,
        "window_end": rfc3339(plot.at_s),
        "channels": [_channel(each, plot) for each in plot.channels],
        "channels_total": plot.channels_total,
    }


def _channel(channel: Channel, plot: SeriesPlot) -> dict[str, Any]:
    return {
        "name": channel.name,
        "share": finite_or_none(channel.share),
        "normal": _normal(channel.normal),
        "side": side_of(channel, plot).value,
        "words": channel_words(channel, plot),
        "values": _numbers(channel.values),
        "expected": None if channel.expected is None else _numbers(channel.expected),
    }


def _numbers(values: NDArray[np.float64]) -> Sequence[float | None]:
    return [finite_or_none(value) for value in values.tolist()]
