"""Review items as the page shows them: figures in words."""

from typing import Any

from cloud.console.why.drawings import thumbnail, view_of
from cloud.modalities import View
from cloud.store.labels import Label
from cloud.store.review.items import StoredItem
from cloud.store.review.severity import Severity
from cloud.store.verdict_columns import VerdictRow
from cloud.words import count_words, duration_words, p_value_words

DECISION_WORDS = {Label.REAL: "real", Label.FALSE_ALARM: "false alarm", Label.UNSURE: "unsure"}
TABS = {
    Severity.ALARM: "Alarms",
    Severity.SUSPICIOUS: "Suspicious",
    Severity.UNDECIDED: "Undecided",
    Severity.MISSED: "Missed by the edge",
}
SEVERITY_WORDS = {
    Severity.ALARM: "Alarm",
    Severity.SUSPICIOUS: "Suspicious",
    Severity.UNDECIDED: "Undecided",
    Severity.MISSED: "Missed by the edge",
}
_NAMES = {
    View.PICTURE: ("image", "images"),
    View.CLIP: ("clip", "clips"),
    View.TRACES: ("window", "windows"),
    View.TABLE: ("row", "rows"),
}


def item_view(item: StoredItem) -> dict[str, Any]:
    """Return one item for a template."""
    cover = item.cover
    return {
        "number": item.number,
        "severity": item.severity.value,
        "severity_words": SEVERITY_WORDS[item.severity],
        "source_id": item.source_id,
        "device_id": item.device_id,
        "site": item.site,
        "modality": item.modality.value,
        "count": item.verdicts,
        "facts": _facts(item),
        "detail": _detail(item),
        "odds": p_value_words(item.p_value, extrapolated=cover is not None and cover.extrapolated),
        "first_at_s": item.first_at_s,
        "last_at_s": item.last_at_s,
        "thumbnail": thumbnail(cover) if cover is not None else {"kind": "none", "bars": []},
        "sample_id": str(cover.sample_id) if cover is not None else "",
        "decision": item.decision.value if item.decision is not None else "",
        "decision_words": DECISION_WORDS.get(item.decision, "") if item.decision is not None else "",
        "defect_class": item.defect_class,
        "is_muted": item.is_hidden,
        "decision_number": item.decision_number,
        "decided_by": item.decided_by,
        "decided_at_s": item.decided_at_s,
        "note": item.note,
        "is_reviewed": item.is_reviewed,
        "is_left": item.is_left,
        "mark": f"{item.decision_number}.{int(item.is_reviewed)}.{item.verdicts}.{item.severity}.{int(item.is_hidden)}"
        f".{item.near_copies}",
    }


def member_view(row: VerdictRow) -> dict[str, Any]:
    """Return one verdict of an item for its strip of pictures."""
    return {
        "sample_id": str(row.sample_id),
        "thumbnail": thumbnail(row),
        "words": p_value_words(row.p_value if row.p_value is not None else row.edge_p_value, row.extrapolated),
        "captured_at_s": row.captured_at_s,
    }


def _facts(item: StoredItem) -> str:
    """Return the number of samples and their time: "48 images over 3 min, and 47 near copies on the device"."""
    name = _NAMES[view_of(item.modality)][item.verdicts > 1]
    count = f"{count_words(item.verdicts)} {name}"
    length_s = item.last_at_s - item.first_at_s
    facts = f"{count} over {duration_words(length_s)}" if item.verdicts > 1 and length_s >= 1 else count
    return f"{facts}, and {copies_words(item.near_copies)}" if item.near_copies else facts


def copies_words(copies: int) -> str:
    """Return the number of near copies: "47 near copies on the device"."""
    return f"{count_words(copies)} near {'copy' if copies == 1 else 'copies'} on the device"


def _detail(item: StoredItem) -> str:
    """Return what stands out in the cover: the largest contributions, or why the cloud could not decide."""
    cover = item.cover
    if cover is None:
        return "its samples have expired"
    if item.severity is Severity.UNDECIDED:
        return cover.reason
    if view_of(cover.modality) in (View.TABLE, View.TRACES) and cover.contributions:
        largest = sorted(cover.contributions, key=lambda item: -item[1])[:2]
        return "mostly " + " and ".join(name for name, _ in largest)
    return cover.origin
