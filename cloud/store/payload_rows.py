"""Conversion between received payload messages and rows of their table.

All fields but the CRC are kept; the CRC is checked before a payload is stored.
"""

from collections.abc import Mapping
from typing import Any

from vedette.v1 import sample_pb2

COLUMNS = ("encoding", "shape", "data", "part")


def payload_values(payload: sample_pb2.Payload) -> dict[str, Any]:
    """Return the values of COLUMNS for a payload."""
    part = payload.crop.SerializeToString() if payload.HasField("crop") else None
    return {"encoding": payload.encoding, "shape": list(payload.shape), "data": payload.data, "part": part}


def payload_message(row: Mapping[Any, Any], data: bytes) -> sample_pb2.Payload:
    """Return the payload message of a row that holds COLUMNS; `data` may come from a segment."""
    message = sample_pb2.Payload(encoding=row["encoding"], shape=row["shape"], data=data)
    if row["part"] is not None:
        message.crop.ParseFromString(row["part"])
    return message
