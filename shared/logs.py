"""Structured logs: one line per event, as logfmt or JSON, on standard error; never a raw sample."""

import json
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

_ROOT = "vedette"


class EventLog:
    """Log of one component; fields are texts, numbers and booleans by name."""

    def __init__(self, component: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{component}")

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event for debugging."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a problem that the process handles."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a problem that needs an operator."""
        self._write(logging.ERROR, event, fields)

    def record(self, event: str, **fields: Any) -> None:
        """Log an event at every level of the log: one that people rely on, such as who saw a sample."""
        logger, extra = self._logger, {"fields": fields}
        logger.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, event, (), None, extra=extra))

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


class Throttle:
    """Rate limit of log events: the first of a kind, then one per `interval_s` with the suppressed count.

    Remembers `max_kinds` kinds, and forgets the oldest first.
    """

    def __init__(self, interval_s: float = 10.0, max_kinds: int = 256) -> None:
        self._interval_s, self._max_kinds = interval_s, max_kinds
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}

    def allow(self, kind: str, count: int = 1) -> int:
        """Return the number of events that the next line stands for; 0: do not log now."""
        now = time.monotonic()
        with self._lock:
            last, held = self._last.get(kind, (-self._interval_s, 0))
            if now - last < self._interval_s:
                self._last[kind] = (last, held + count)
                return 0
            self._last.pop(kind, None)  # the newest is the last
            if len(self._last) >= self._max_kinds:
                del self._last[next(iter(self._last))]
            self._last[kind] = (now, 0)
            return held + count


def configure(level: str = "info", line_format: str = "logfmt", *, libraries: bool = False) -> None:
    """Send Vedette's events to standard error; with `libraries` also the warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if line_format == "json" else _LogfmtFormatter())
    for name, threshold in ((_ROOT, level.upper()), *((("", "WARNING"),) if libraries else ())):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(threshold)
        logger.propagate = False


class _LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in _parts(record).items())


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_parts(record), default=str)


def _parts(record: logging.LogRecord) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, Any] = getattr(record, "fields", {})
    component = record.name.removeprefix(f"{_ROOT}.")
    head = {"time": moment, "level": record.levelname.lower(), "component": component, "event": record.getMessage()}
    if record.exc_info:  # from a library
        fields = fields | {"trace": logging.Formatter().formatException(record.exc_info)}
    return head | fields


def _quoted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    plain = text.isprintable() and not any(character in text for character in ' "=')
    return text if text and plain else json.dumps(text)
