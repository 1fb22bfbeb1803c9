"""Frozen set: stored samples that no retraining ever learns from, so that bundles can be compared on them.

Whether a sample is frozen follows from its id alone, so it is the same in every retraining. Neighbouring windows of a
series overlap: all windows of the same ten minutes are frozen together, by the time in their ids (UUIDv7).
"""

import hashlib
import uuid

FROZEN_SHARE = 0.2
SLOT_MS = 10 * 60 * 1000


def is_frozen(sample_id: uuid.UUID, *, by_time: bool) -> bool:
    """Return whether a sample is frozen; `by_time`: all samples of the same SLOT_MS are alike."""
    return frozen_rank(sample_id, by_time=by_time) < FROZEN_SHARE


def frozen_rank(sample_id: uuid.UUID, *, by_time: bool = False) -> float:
    """Return a number in [0, 1) that follows from the id, or from its time slot."""
    key = sample_id.bytes
    if by_time:
        key = (int.from_bytes(key[:6], "big") // SLOT_MS).to_bytes(6, "big")
    return int.from_bytes(hashlib.sha256(b"frozen" + key).digest()[:8], "big") / 2**64
