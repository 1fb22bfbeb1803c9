"""Rows of new samples, as ingest writes them on every back end."""

from typing import Any, TypeAlias

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
TRACED = SAMPLE_COLUMNS.index("traced")
PAYLOAD_COLUMNS = ("encoding", "shape", "data", "part", "edge_map_height", "edge_map_width", "edge_map")
"""`shape` is JSON as text."""

Row: TypeAlias = tuple[tuple[Any, ...], tuple[Any, ...], int]
"""New sample: values of SAMPLE_COLUMNS, values of PAYLOAD_COLUMNS, size of its values after decoding in bytes."""
