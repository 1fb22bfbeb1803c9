"""Cache of the weeks of groups: parts that a later forecast of the same devices needs not read again.

Histograms and budgets are valid until the counter of verdicts moves on. The heartbeats of a past time stay as they are.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cloud.store.replay.beats import PastBeats
from cloud.store.replay.counts import Counts

MAX_WEEKS = 16
MAX_KEPT_SOURCES = 4000  # of all weeks: 15 kB each


@dataclass(slots=True)
class KeptWeek:
    """Kept parts of one week, None before the first reading."""

    counts: Counts | None = None
    past_beats: PastBeats | None = None


class KeptWeeks:
    """Least recently used weeks, bounded in number and sources; for one event loop and one store."""

    def __init__(self) -> None:
        self._weeks: OrderedDict[tuple[float, tuple[Hashable, ...]], KeptWeek] = OrderedDict()

    def of(self, enrolled: Sequence[Hashable], since_s: float) -> KeptWeek:
        """Return the kept parts of these enrolments since a time; the caller adds others, and calls `shrink`."""
        key = (since_s, tuple(enrolled))
        week = self._weeks.setdefault(key, KeptWeek())
        self._weeks.move_to_end(key)
        self.shrink()
        return week

    def shrink(self) -> None:
        """Drop the least recently used weeks beyond the bounds."""

        def sources() -> int:
            return sum(len(week.counts.sources) for week in self._weeks.values() if week.counts is not None)

        while len(self._weeks) > MAX_WEEKS or sources() > MAX_KEPT_SOURCES:
            self._weeks.popitem(last=False)
