"""Holds on segments: while a backup copies them, no process removes any."""

import time
import uuid

from cloud.store.objects import Objects

HOLDS = "holds"
HOLD_S = 3600.0  # after which a hold that was not renewed counts no more


class SegmentHold:
    """Hold on the segments of a store; renew it within HOLD_S, and release it at the end. Its calls block.

    Each call raises StorageError if the payload store cannot be reached.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects, self._name = objects, f"{HOLDS}/{uuid.uuid4().hex}"
        self._renewed_at_s = 0.0
        self.renew()

    def renew(self) -> None:
        """Let the hold count for another HOLD_S."""
        if time.time() - self._renewed_at_s > HOLD_S / 4:
            self._renewed_at_s = time.time()
            self._objects.write(self._name, repr(self._renewed_at_s).encode())

    def release(self) -> None:
        """End the hold."""
        self._objects.remove([self._name])


def are_held(objects: Objects) -> bool:
    """Return whether a hold counts; removes those that count no more. Blocking. Raises StorageError."""
    is_held = False
    for name in objects.sizes(HOLDS):
        try:
            counts = time.time() - float(objects.read(name) or b"0") <= HOLD_S
        except ValueError:
            counts = False
        if not counts:
            objects.remove([name])
        is_held = is_held or counts
    return is_held
