"""Payloads as rows of their table, and back to exactly the message that was received."""

from typing import Any

from sqlalchemy import RowMapping

from vedette.v1 import sample_pb2

COLUMNS = ("encoding", "shape", "data", "part")


def payload_values(payload: sample_pb2.Payload) -> dict[str, Any]:
    """The values of COLUMNS."""
    part = payload.crop.SerializeToString() if payload.HasField("crop") else None
    return {"encoding": payload.encoding, "shape": list(payload.shape), "data": payload.data, "part": part}


def payload_message(row: RowMapping) -> sample_pb2.Payload:
    """The message of a row that holds COLUMNS."""
    message = sample_pb2.Payload(encoding=row["encoding"], shape=row["shape"], data=row["data"])
    if row["part"] is not None:
        message.crop.ParseFromString(row["part"])
    return message
