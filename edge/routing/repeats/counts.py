"""Numbers of near copies that stayed on the device, by the sample that they are copies of, for the service."""

from collections.abc import Sequence

from shared.status import NearCopies

MAX_COUNTED = 512


class CopyCounts:
    """Totals by sample id; the longest unchanged ones are forgotten. Not safe to use from several threads."""

    def __init__(self) -> None:
        self._copies: dict[bytes, NearCopies] = {}
        self._reported: dict[bytes, int] = {}

    def add(self, sample_id: bytes, now_s: float) -> None:
        """Count a copy of a judged sample."""
        before = self._copies.pop(sample_id, None)
        total = 1 + (before.copies if before is not None else 0)
        self._copies[sample_id] = NearCopies(sample_id=sample_id, copies=total, last_at_s=now_s)
        while len(self._copies) > MAX_COUNTED:
            self._forget(next(iter(self._copies)))

    def to_report(self) -> list[NearCopies]:
        """Return the totals that have changed since they were last confirmed, the longest unchanged first."""
        return [item for item in self.totals() if self._reported.get(item.sample_id) != item.copies]

    def confirm(self, reported: Sequence[NearCopies]) -> None:
        """Note that the service has these totals."""
        self._reported.update({item.sample_id: item.copies for item in reported if item.sample_id in self._copies})

    def restore(self, totals: Sequence[NearCopies]) -> None:
        """Go on from the totals of an earlier run; all of them are reported again."""
        for item in totals:
            self._copies[item.sample_id] = item

    def totals(self) -> list[NearCopies]:
        """Return all totals."""
        return list(self._copies.values())

    def _forget(self, sample_id: bytes) -> None:
        del self._copies[sample_id]
        self._reported.pop(sample_id, None)
