"""Text forms used in several places: times, and addresses without secrets."""

import re
from datetime import UTC, datetime

_SECRET = re.compile(r"//[^/\s]*@")


def moment_text(at_s: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, or as a number if beyond the calendar."""
    try:
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
    return text.removesuffix("+00:00") + "Z"


def without_secrets(text: str) -> str:
    """Return the text without user and password in its addresses, such as rtsp://user:secret@camera."""
    return _SECRET.sub("//", text)


def percent_text(share: float) -> str:
    """Return a share in percent with two significant digits, such as "0.4 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def at_most_percent(share: float) -> str:
    """Return an upper bound in percent with two significant digits, rounded up, without the sign "%"."""
    percent = 100 * share
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2 if percent >= 0.1 else 3
    scale = 10**digits
    return f"{min(100.0, -(-percent * scale // 1) / scale):.{digits}f}"
