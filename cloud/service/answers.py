"""Serialised answers to Submit."""

from collections.abc import Sequence

from vedette.v1 import detection_pb2

# Wire format: results (field 1) of 20 bytes, each a sample_id (field 1) of 16 bytes and the status (field 2) ACCEPTED.
_BEFORE, _AFTER = b"\x0a\x14\x0a\x10", bytes((0x10, detection_pb2.SUBMIT_STATUS_ACCEPTED))


def accepted(sample_ids: Sequence[bytes]) -> bytes:
    """Return the serialised SubmitResponse that accepts all samples; `sample_ids` have 16 bytes each."""
    return _BEFORE + (_AFTER + _BEFORE).join(sample_ids) + _AFTER if sample_ids else b""
