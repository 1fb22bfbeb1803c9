"""Thumbnails and drawings of samples for the browser, by the view of their modality."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.console.why.contents import Contents
from cloud.console.why.traces import plot
from cloud.modalities import View, cloud_modality
from cloud.store.queries import JudgedSample
from cloud.store.verdict_columns import VerdictRow, finite_or_none
from cloud.words import number_words
from shared.modality import Modality
from shared.samples import Values

STRIP_BARS = 6
MAX_FEATURES = 200
MAX_FRAMES = 16


def view_of(modality: Modality) -> View:
    """Return how the console shows samples of a modality."""
    return cloud_modality(modality).view


def thumbnail(row: VerdictRow) -> dict[str, Any]:
    """Return the small picture of a row: the address of a picture, or bars of the largest contributions."""
    view = view_of(row.modality)
    if view is View.TABLE:
        shares = sorted(row.contributions, key=lambda item: -item[1])[:STRIP_BARS]
        return {"kind": "bars", "bars": [{"name": name, "share": finite_or_none(share)} for name, share in shares]}
    suffix = "svg" if view is View.TRACES else "png"
    return {"kind": "picture", "url": f"/media/{row.sample_id}/thumbnail.{suffix}"}


def drawing(sample: JudgedSample, contents: Contents) -> dict[str, Any]:
    """Return what the browser needs to draw a sample; kind "none" if there are no values."""
    if contents.values is None:
        return {"kind": "none"}
    return _DRAWINGS[view_of(sample.record.modality)](sample, contents, contents.values)


def shown_frames(count: int) -> list[int]:
    """Return the indices of the frames that the console shows of a clip of `count` frames, at most MAX_FRAMES."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, MAX_FRAMES)).round()})


def _picture(sample: JudgedSample, contents: Contents, values: Values) -> dict[str, Any]:
    media = f"/media/{sample.record.sample_id}"
    return {
        "kind": "image",
        "image": f"{media}/image.png",
        "height_px": values.shape[0],
        "width_px": values.shape[1],
        **_maps(media, contents),
    }


def _clip(sample: JudgedSample, contents: Contents, values: Values) -> dict[str, Any]:
    """Return the frames with their shares of the verdict. The maps belong to the last frame."""
    media = f"/media/{sample.record.sample_id}"
    shares = dict(sample.record.contributions)
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
    return {"kind": "clip", "frames": frames, "frames_total": len(values), **_maps(media, contents)}


def _maps(media: str, contents: Contents) -> dict[str, str]:
    """Return the addresses of both anomaly maps; empty for one that is missing."""
    return {
        "cloud_map": f"{media}/cloud_map.png" if contents.cloud_map is not None else "",
        "edge_map": f"{media}/edge_map.png" if contents.edge_map is not None else "",
    }


def _traces(sample: JudgedSample, contents: Contents, values: Values) -> dict[str, Any]:
    shares = sample.record.contributions
    return {"kind": "series", "plot": plot(values.astype(np.float32), contents.cloud_map, sample.channels, shares)}


def _table(sample: JudgedSample, contents: Contents, values: Values) -> dict[str, Any]:
    shares = dict(sample.record.contributions)
    return {"kind": "tabular", **_features(values.astype(np.float32), sample.channels, shares)}


_DRAWINGS: Mapping[View, Callable[[JudgedSample, Contents, Values], dict[str, Any]]] = {
    View.TABLE: _table,
    View.TRACES: _traces,
    View.PICTURE: _picture,
    View.CLIP: _clip,
}


def _features(values: NDArray[np.float32], names: Sequence[str], shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the features of a row, those with the largest contributions first."""
    labels = [names[index] if index < len(names) else f"feature {index + 1}" for index in range(len(values))]
    order = sorted(range(len(values)), key=lambda index: -(finite_or_none(shares.get(labels[index])) or 0.0))
    features = [
        {
            "name": labels[index],
            "value": number_words(float(values[index])),
            "share": finite_or_none(shares.get(labels[index])),
        }
        for index in order[:MAX_FEATURES]
    ]
    return {"features": features, "features_total": len(values)}
