"""Places of the large maps of new verdicts in segments, kept over the attempts to store these verdicts."""

from collections.abc import Sequence

from cloud.store.engine import Store
from cloud.store.segments import LEAST_SEGMENT_BYTES, LEAST_VALUE_BYTES, SegmentPlace, SegmentValue, is_settled
from cloud.store.verdict_rows import NewVerdict


class MapPlaces:
    """Places of the maps of one batch, by number of the sample.

    A map is written to one segment, however often its verdict is tried, until the segment is settled: an older one may
    be removed before a transaction names it.
    """

    def __init__(self) -> None:
        self._places: dict[int, SegmentPlace] = {}

    async def add_to(self, store: Store, rows: Sequence[NewVerdict]) -> Sequence[NewVerdict]:
        """Return the verdicts with large maps in a segment, which is durable then. Raises StorageError."""
        if not store.segments.are_used:
            return rows
        self._places = {number: place for number, place in self._places.items() if not is_settled(place.segment_id)}
        large = {
            row.number: cells
            for row in rows
            if row.number not in self._places and len(cells := row.cells) >= LEAST_VALUE_BYTES
        }
        if sum(map(len, large.values())) >= LEAST_SEGMENT_BYTES:
            written = await store.segments.write([SegmentValue(cells) for cells in large.values()])
            self._places |= zip(large, written, strict=True)
        return [
            row.with_map_at(self._places[row.number]) if row.number in self._places and row.cells else row
            for row in rows
        ]
