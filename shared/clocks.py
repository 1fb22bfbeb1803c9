"""Judgement of clocks that differ, and the texts that name them."""

MAX_CLOCK_ERROR_S = 60.0  # a larger difference is reported
MAX_LATENCY_S = 30 * 86400.0  # longer ones are due to a clock or to old data: a spool keeps samples for a week
DEVICE_CLOCK = "clock: "  # begins the warning of a device whose own clock is off


def clock_words(offset_s: float, reference: str) -> str:
    """Return an offset in words, such as "2 days ahead of the service"; `offset_s` is the clock minus the reference."""
    size = abs(offset_s)
    for seconds, name in ((365.25 * 86400, "year"), (86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if size >= 1.9 * seconds or (size >= seconds and name == "minute"):
            count = round(size / seconds)
            break
    else:
        count, name = round(size), "second"
    return f"{count:,} {name}{'' if count == 1 else 's'} {'ahead of' if offset_s > 0 else 'behind'} {reference}"


def device_clock_warning(offset_s: float | None) -> str:
    """Return the warning for a device's clock that differs from the service's; empty if it does not."""
    if offset_s is None or abs(offset_s) <= MAX_CLOCK_ERROR_S:
        return ""
    return f"{DEVICE_CLOCK}the device is {clock_words(offset_s, 'the service')}: set its clock, for example by NTP"
