"""Texts that are written in more than one place: a moment, and an address without its secret."""

import re
from datetime import UTC, datetime

_SECRET = re.compile(r"//[^/\s]*@")


def moment_text(at_s: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond; the number where it is on no calendar."""
    try:
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
    return text.removesuffix("+00:00") + "Z"


def without_secrets(text: str) -> str:
    """The text with user and password taken out of the addresses in it, such as rtsp://user:secret@camera."""
    return _SECRET.sub("//", text)
