"""Rows of new verdicts, as the analysis writes them on every back end."""

from typing import Any, NamedTuple

from cloud.store.segments import PLACE_COLUMNS, SegmentPlace

VERDICT_COLUMNS = (
    "number",
    "judged_at_s",
    "device_id",
    "source_id",
    "modality",
    "route",
    "decision",
    "p_value",
    "extrapolated",
    "bundle_id",
    "reason",
    "opinions",
    "contributions",
)
"""`opinions` and `contributions` are JSON as text."""
MAP_COLUMNS = ("number", "height", "width", "cells", *PLACE_COLUMNS)


class NewVerdict(NamedTuple):
    """New verdict: values of VERDICT_COLUMNS, and values of MAP_COLUMNS if it has a map.

    Its time is 0 if it shall get that of the transaction.
    """

    values: tuple[Any, ...]
    map_values: tuple[Any, ...] | None = None

    @property
    def number(self) -> int:
        """Number of the sample."""
        return int(self.values[0])

    @property
    def cells(self) -> bytes:
        """Cells of the map; empty if there is none."""
        return bytes(self.map_values[3]) if self.map_values is not None else b""

    @property
    def segment_id(self) -> bytes | None:
        """Segment with its map; None if there is none."""
        return self.map_values[4] if self.map_values is not None else None

    def with_map_at(self, place: SegmentPlace) -> "NewVerdict":
        """Return the verdict whose map lies in a segment."""
        assert self.map_values is not None
        return NewVerdict(self.values, (*self.map_values[:3], b"", *place))

    def at(self, now_s: float) -> "NewVerdict":
        """Return the verdict with the time of the transaction if it has none."""
        if self.values[1]:
            return self
        return NewVerdict((self.values[0], now_s, *self.values[2:]), self.map_values)


class WrittenVerdicts(NamedTuple):
    """Time of the transaction, and the cursor of the event of each verdict that was written, by number."""

    at_s: float
    cursors: dict[int, int]
