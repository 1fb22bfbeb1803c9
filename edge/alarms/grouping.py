"""Grouping of alarms into messages: the first of a source at once, later ones gathered into one."""

import time
from collections.abc import Callable

from edge.alarms.message import Alarm, Message
from edge.token_bucket import TokenBucket


class Grouping:
    """Rate limit for alarm messages: one per source in `quiet_s` seconds, `max_per_minute` in total.

    Alarms beyond that are held and counted in one message, which is sent as soon as both limits allow it.
    """

    def __init__(self, quiet_s: float, max_per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_s, self._clock = quiet_s, clock
        self._budget = TokenBucket(max_per_minute / 60.0, 60.0, clock)
        self._sent_at_s: dict[str, float] = {}
        self._held: dict[str, Message] = {}
        self._on_hold: set[str] = set()  # sources whose alarms a warning stands for

    def hold(self, source_id: str) -> None:
        """Hold all alarms of a source until `release`; those held already are part of the warning."""
        self._on_hold.add(source_id)
        self._held.pop(source_id, None)

    def release(self, source_id: str) -> None:
        """Send alarms of the source again; those held meanwhile become one message."""
        self._on_hold.discard(source_id)

    def add(self, alarm: Alarm) -> Message | None:
        """Return the message to send now, or None if it is held."""
        held = self._held.get(alarm.source_id)
        if held is None:
            self._held[alarm.source_id] = Message(alarm)
        else:
            worst = min(held.alarm, alarm, key=lambda one: one.p_value)
            self._held[alarm.source_id] = Message(worst, held.further + 1)
        return self._take(alarm.source_id)

    def due(self) -> list[Message]:
        """Return held messages that may be sent now."""
        return [message for source_id in list(self._held) if (message := self._take(source_id)) is not None]

    def rest(self) -> list[Message]:
        """Return all held messages at shutdown, except those that a warning stands for."""
        rest = [message for source_id, message in self._held.items() if source_id not in self._on_hold]
        self._held = {}
        return rest

    def _take(self, source_id: str) -> Message | None:
        if source_id in self._on_hold or source_id not in self._held:
            return None
        now_s = self._clock()
        sent_at_s = self._sent_at_s.get(source_id)
        if (sent_at_s is not None and now_s - sent_at_s < self._quiet_s) or self._budget.level() < 1.0:
            return None
        self._budget.spend(1.0)
        self._sent_at_s[source_id] = now_s
        return self._held.pop(source_id)
