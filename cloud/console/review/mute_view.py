"""Mutes, their previews and the effects of labels in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud.console.review.item_view import item_view
from cloud.store.label_figures import MAX_COUNTED, LabelFigures
from cloud.store.labels import Label
from cloud.store.review.items import StoredItem
from cloud.store.review.mute_preview import MAX_COMPARED, MutePreview
from cloud.store.review.mutes import HiddenCounts, StoredMute
from cloud.store.review.muting import MuteScope, Pattern
from cloud.words import count_words, duration_words, p_value_words

SCOPE_WORDS = {
    MuteScope.SOURCE: "This source",
    MuteScope.DEVICE: "All sources of the device",
    MuteScope.SITE: "All devices of the site",
    MuteScope.BUNDLE: "The bundle at all sites",
}
LIKENESS_WORDS = ((0.95, "nearly the same"), (0.9, "alike"), (0.8, "roughly alike"), (0.7, "of the same kind"))
DAYS_WORDS = ((1, "1 day"), (7, "7 days"), (14, "14 days"), (30, "30 days"), (90, "90 days"))
EXPORT_COMMAND = "vedette cloud export --output labelled --labelled --payloads --config cloud.toml"
_LABEL_WORDS = {
    Label.REAL: "real",
    Label.MISSED: "missed",
    Label.FALSE_ALARM: "called false alarm",
    Label.UNSURE: "unsure",
}


def mute_view(mute: StoredMute, counts: HiddenCounts, now_s: float) -> dict[str, Any]:
    """Return one mute for a template."""
    pattern, is_active = mute.pattern, mute.is_active(now_s)
    return {
        "number": mute.number,
        "where": where_words(pattern),
        "bundle": pattern.bundle_name,
        "modality": pattern.modality,
        "likeness": f"{pattern.likeness:g}",
        "lowest": p_value_words(pattern.lowest_p_value(), extrapolated=False),
        "item": mute.item,
        "note": mute.note,
        "author": mute.author,
        "at_s": mute.at_s,
        "is_active": is_active,
        "can_resume": mute.ended_at_s is not None and mute.expires_at_s > now_s,
        "ended_by": mute.ended_by,
        "end_s": mute.end_s,
        "ends_in": duration_words(mute.expires_at_s - now_s) if is_active else "",
        "hidden": mute.hidden_items,
        "day": counts.day,
        "week": counts.week,
        "real": counts.real,
    }


def where_words(pattern: Pattern) -> str:
    """Return the scope of a pattern: "hopper on press-07"."""
    match pattern.scope:
        case MuteScope.SOURCE:
            return f"{pattern.source_id} on {pattern.device_id}"
        case MuteScope.DEVICE:
            return f"all sources of {pattern.device_id}"
        case MuteScope.SITE:
            return f"site {pattern.site}"
    return "all sites"


def preview_view(preview: MutePreview, items: Sequence[StoredItem]) -> dict[str, Any]:
    """Return a preview for a template; `items` are those of it that are shown."""
    missing = preview.items - preview.compared
    cut = f"the newest {count_words(MAX_COMPARED)} of " if preview.is_cut else ""
    hidden, real = len(preview.hidden), len(preview.real)
    words = f"Muting this pattern would have hidden {count_words(hidden)} of {cut}last week's "
    words += (
        f"{count_words(preview.items)} {'item' if preview.items == 1 else 'items'}, {count_words(real)} of them real."
    )
    return {
        "words": words,
        "real": real,
        "left": len(preview.left),
        "hidden": hidden,
        "missing": f"{count_words(missing)} could not be compared: nothing shows what deviates." if missing else "",
        "items": [item_view(item) | {"is_real": item.number in preview.real} for item in items],
        "more": max(0, hidden - len(items)),
    }


def figures_view(figures: LabelFigures, bundle_name: str) -> dict[str, Any]:
    """Return counts of labels for a template."""
    classes: Mapping[str, int] = dict(sorted(figures.by_class.items(), key=lambda each: (-each[1], each[0])))
    counts = [
        f"{count_words(figures.by_label[label])} {words}"
        for label, words in _LABEL_WORDS.items()
        if label in figures.by_label
    ]
    return {
        "bundle": bundle_name,
        "samples": count_words(figures.samples),
        "counts": ", ".join(counts),
        "classes": [f"{name} {count_words(count)}" for name, count in classes.items()],
        "cut": f"Among the newest {count_words(MAX_COUNTED)} labels." if figures.is_cut else "",
        "command": EXPORT_COMMAND,
    }
