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
