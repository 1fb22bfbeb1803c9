"""Comparison of the time stamps of readings with the device's clock."""

from collections.abc import Iterable, Sequence

from shared.clocks import MAX_CLOCK_ERROR_S, clock_words

PERIOD_S = 60.0  # stamps are judged behind only by the newest of a period: a backlog is old, and then ends
MIN_READINGS = 3  # of a channel
MAX_NAMED = 5


class ClockCheck:
    """Newest time stamp of each channel within a period, relative to the moment of its arrival."""

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = channels
        self._since_s: float | None = None
        self._newest: dict[int, tuple[float, int]] = {}  # offset in seconds and number of readings, by channel
        self._text = ""

    def add(self, channels: Iterable[int], offset_s: float, now_s: float) -> None:
        """Count a reading of some channels whose stamp is `offset_s` after its arrival; `now_s` is monotonic."""
        if self._since_s is None:
            self._since_s = now_s
        for channel in channels:
            newest_s, count = self._newest.get(channel, (offset_s, 0))
            self._newest[channel] = max(newest_s, offset_s), count + 1

    def judge(self, now_s: float) -> str | None:
        """Return what is wrong with the stamps, an empty text if nothing is, or None if that cannot be told yet."""
        if self._since_s is None:
            return None
        is_over = now_s - self._since_s >= PERIOD_S
        offsets = {channel: offset_s for channel, (offset_s, count) in self._newest.items() if count >= MIN_READINGS}
        if not is_over:
            ahead = {channel: offset_s for channel, offset_s in offsets.items() if offset_s > MAX_CLOCK_ERROR_S}
            return self._words(ahead, len(offsets)) if ahead and not self._text else None
        self._since_s, self._newest = None, {}
        if not offsets:
            return None
        wrong = {channel: offset_s for channel, offset_s in offsets.items() if abs(offset_s) > MAX_CLOCK_ERROR_S}
        self._text = ""
        return self._words(wrong, len(offsets)) if wrong else ""

    def _words(self, wrong: dict[int, float], judged: int) -> str:
        """Return a text with the offset that is furthest off, and the channels unless all are."""
        worst_s = max(wrong.values(), key=abs)
        names = ", ".join(repr(self._channels[channel]) for channel in sorted(wrong)[:MAX_NAMED])
        whose = "time stamps" if len(wrong) == judged else f"time stamps of {names}"
        words = clock_words(worst_s, "the device's clock")
        self._text = f"{whose} are {words}: set the sensor's clock"
        return self._text
