"""Rows of new samples, as every back end writes them."""

import json
import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, TypeAlias

from cloud.store.payload_rows import payload_values
from cloud.store.segments import NO_PLACE, PLACE_COLUMNS, SegmentPlace
from shared.wire import decoded_bytes, modality_of, route_of
from vedette.v1 import detection_pb2, sample_pb2

SAMPLE_COLUMNS = (
    "sample_id",
    "device_id",
    "received_at_s",
    "source_id",
    "modality",
    "origin",
    "captured_at_s",
    "route",
    "edge_score",
    "edge_p_value",
    "edge_extrapolated",
    "edge_bundle_id",
    "calibration_id",
    "artefact",
    "traced",
    "payload_bytes",
)
PAYLOAD_COLUMNS = ("encoding", "shape", "data", "part", "edge_map_height", "edge_map_width", "edge_map", *PLACE_COLUMNS)
"""`shape` is JSON as text."""

Row: TypeAlias = tuple[tuple[Any, ...], tuple[Any, ...], int]
"""New sample: values of SAMPLE_COLUMNS, values of PAYLOAD_COLUMNS, size of its values after decoding in bytes."""


def rows_of(
    device_id: str,
    received_at_s: float,
    data: bytes,
    traced: Collection[bytes] = (),
    places: Sequence[SegmentPlace | None] = (),
) -> list[Row]:
    """Return the rows of the samples in a serialised SubmitRequest, which were checked before.

    `traced` are ids. `places` are those of the payloads in a segment, None for the others; empty if there are none.
    """
    samples = detection_pb2.SubmitRequest.FromString(data).samples
    pairs = zip(samples, places or repeat(None), strict=bool(places))
    return [_row(device_id, received_at_s, message, traced, place) for message, place in pairs]


def _row(
    device_id: str,
    received_at_s: float,
    message: sample_pb2.Sample,
    traced: Collection[bytes],
    place: SegmentPlace | None,
) -> Row:
    screening, payload, at = message.screening, message.payload, message.captured_at
    modality, route = modality_of(message), route_of(message)
    assert modality is not None
    assert route is not None
    score, stored = screening.score, payload_values(payload)
    sample = (
        message.sample_id,
        device_id,
        received_at_s,
        message.source_id,
        modality.value,
        message.origin,
        at.seconds + at.nanos / 1e9,
        route.value,
        score if math.isfinite(score) else None,
        screening.p_value,
        screening.extrapolated,
        screening.bundle_id,
        screening.calibration_id,
        screening.artefact,
        message.sample_id in traced,
        place.size if place is not None else len(stored["data"]),
    )
    shape = tuple(stored["shape"])
    payload_row = (stored["encoding"], _as_json(shape), stored["data"], stored["part"], *_edge_map(screening))
    values = (*payload_row, *(place or NO_PLACE))
    return sample, values, decoded_bytes(stored["encoding"], shape)


def _edge_map(screening: sample_pb2.Screening) -> tuple[int, int, bytes] | tuple[None, None, None]:
    if not screening.HasField("anomaly_map"):
        return (None, None, None)
    edge_map = screening.anomaly_map
    return edge_map.height, edge_map.width, edge_map.values


@lru_cache(maxsize=1024)
def _as_json(shape: tuple[int, ...]) -> str:
    return json.dumps(shape)
