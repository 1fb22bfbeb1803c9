"""Thumbnails and drawings of samples for the browser, by the view of their modality."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cloud.console.why.gauges import feature_view
from cloud.console.why.plot import curve, plot_view
from cloud.evidence.contents import Contents
from cloud.evidence.reading import Evidence
from cloud.modalities import View, cloud_modality
from cloud.store.verdict_columns import VerdictRow, finite_or_none
from shared.modality import Modality
from shared.samples import Values

STRIP_BARS = 6
MAX_FEATURES = 200
MAX_FRAMES = 16
DEFAULT_FRAME_S = 0.25  # between two frames of a clip whose bundle does not tell


def view_of(modality: Modality) -> View:
    """Return how the console shows samples of a modality."""
    return cloud_modality(modality).view


def thumbnail(row: VerdictRow, media: str = "") -> dict[str, Any]:
    """Return the small picture of a row: the address of a picture, or bars of the largest contributions.

    `media`: beginning of the addresses of its pictures, by default those of signed-in people.
    """
    view = view_of(row.modality)
    if view is View.TABLE:
        shares = sorted(row.contributions, key=lambda item: -item[1])[:STRIP_BARS]
        return {"kind": "bars", "bars": [{"name": name, "share": finite_or_none(share)} for name, share in shares]}
    suffix = "svg" if view is View.TRACES else "png"
    return {"kind": "picture", "url": f"{media or media_path(row)}/thumbnail.{suffix}"}


def media_path(row: VerdictRow) -> str:
    """Return the beginning of the addresses of a sample's pictures for signed-in people."""
    return f"/media/{row.sample_id}"


def drawing(evidence: Evidence, media: str) -> dict[str, Any]:
    """Return what the browser needs to draw a sample; kind "none" if there are no values.

    `media`: beginning of the addresses of its pictures.
    """
    values = evidence.contents.values
    if values is None:
        return {"kind": "none"}
    return _DRAWINGS[view_of(evidence.record.modality)](evidence, values, media)


def shown_frames(count: int) -> list[int]:
    """Return the indices of the frames that the console shows of a clip of `count` frames, at most MAX_FRAMES."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, MAX_FRAMES)).round()})


def _picture(evidence: Evidence, values: Values, media: str) -> dict[str, Any]:
    return {
        "kind": "image",
        "image": f"{media}/image.png",
        "height_px": values.shape[0],
        "width_px": values.shape[1],
        **_maps(media, evidence.contents),
        **_region(evidence),
    }


def _clip(evidence: Evidence, values: Values, media: str) -> dict[str, Any]:
    """Return the frames with their shares of the verdict. The maps belong to the last frame."""
    shares = dict(evidence.record.contributions)
    frames: list[dict[str, Any]] = [
        {
            "number": index,
            "image": f"{media}/frame/{index}.png",
            "share": finite_or_none(shares.get(f"frame {index + 1}")),
            "is_last": index == len(values) - 1,
        }
        for index in shown_frames(len(values))
    ]
    known = [frame["share"] for frame in frames if frame["share"] is not None]
    stands_out = len(known) > 1 and max(known) > min(known)
    for frame in frames:
        frame["is_highest"] = stands_out and frame["share"] == max(known)
    interval_s = evidence.bundle.spec.frame_interval_s if evidence.bundle is not None else 0.0
    skipped = (len(values) - 1) / max(1, len(frames) - 1) if len(frames) > 1 else 1.0
    return {
        "kind": "clip",
        "frames": frames,
        "frames_total": len(values),
        "frame_s": (interval_s or DEFAULT_FRAME_S) * skipped,
        "interval_s": interval_s or None,
        "ratio": values.shape[2] / values.shape[1],
        "curve": curve([frame["share"] for frame in frames]) if len(known) > 1 else "",
        **_maps(media, evidence.contents),
        **_region(evidence),
    }


def _region(evidence: Evidence) -> dict[str, Any]:
    """Return the place of the marked region."""
    region = evidence.region
    return {"region": None if region is None else {"words": region.words, "share": region.share, "box": region.box}}


def _maps(media: str, contents: Contents) -> dict[str, str]:
    """Return the addresses of both anomaly maps; empty for one that is missing."""
    return {
        "cloud_map": f"{media}/cloud_map.png" if contents.cloud_map is not None else "",
        "edge_map": f"{media}/edge_map.png" if contents.edge_map is not None else "",
    }


def _traces(evidence: Evidence, _: Values, __: str) -> dict[str, Any]:
    assert evidence.series is not None
    return {"kind": "series", "plot": plot_view(evidence.series)}


def _table(evidence: Evidence, _: Values, __: str) -> dict[str, Any]:
    features = evidence.features
    return {
        "kind": "tabular",
        "features": [feature_view(feature) for feature in features[:MAX_FEATURES]],
        "features_total": len(features),
        "has_normal": any(feature.normal is not None for feature in features),
        "has_typical": any(feature.typical is not None for feature in features),
    }


_DRAWINGS: Mapping[View, Callable[[Evidence, Values, str], dict[str, Any]]] = {
    View.TABLE: _table,
    View.TRACES: _traces,
    View.PICTURE: _picture,
    View.CLIP: _clip,
}
