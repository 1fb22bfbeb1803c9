"""From what a sensor sends to readings: which field is which channel, when it was taken, and whether it is any good.

Fields are named by JMESPath expressions (jmespath.org), which search and evaluate nothing but the record itself.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import jmespath
from jmespath.exceptions import JMESPathError

from edge.settings.sources import ChannelSettings, ReadingsBase
from edge.sources.alignment import Reading
from shared.errors import SettingsError
from shared.samples import Rejection

MAX_PAYLOAD_BYTES = 2**20
MAX_RECORDS = 10_000  # in one payload
MOST_SECONDS = 2.5e11  # the year 9892
_ABSENT = ("", "na", "n/a", "nan", "null", "none")
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_AUTO = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))  # the least number of each: the year 1973 or later


class _Expression(Protocol):
    def search(self, value: Any) -> Any: ...


class RecordReader:
    """Reads records: JSON objects, or rows of a table by the names of its columns."""

    def __init__(self, settings: ReadingsBase, channels: Sequence[str], numbers: Sequence[int]) -> None:
        """`numbers`: which of the bundle's `channels` these records hold. Raises SettingsError for a wrong path."""
        self._channels, self._numbers = channels, tuple(numbers)
        self._time = _compiled(settings.time_path, f"source {settings.id!r}: time_path")
        self._unit = settings.time_unit
        self._good = {_plain(value) for value in settings.good_quality}
        self._paths: list[tuple[int, _Expression | None, _Expression | None]] = []
        for number in self._numbers:
            own = settings.channels.get(channels[number], ChannelSettings())
            where = f"source {settings.id!r}: channel {channels[number]!r}"
            path = _compiled(own.path, f"{where}: path")
            quality = _compiled(own.quality_path or settings.quality_path, f"{where}: quality_path")
            self._paths.append((number, path, quality))

    def read(self, payload: bytes, arrived_s: float, origin: str) -> Iterator[Reading | Rejection]:
        """The readings in a JSON payload: a record, a list of records, or a bare number if there is one channel."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            yield Rejection(origin, f"is {len(payload)} bytes long, and {MAX_PAYLOAD_BYTES} are the limit.")
            return
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            value = payload.decode("utf-8", "replace").strip()  # perhaps a number that JSON does not know, such as ".5"
            if len(self._numbers) != 1:
                yield Rejection(origin, f"is no JSON: {value[:40]!r}.")
                return
        records = value if isinstance(value, list) else [value]
        if len(records) > MAX_RECORDS:
            yield Rejection(origin, f"holds {len(records)} records, and {MAX_RECORDS} are the limit.")
            records = records[:0]
        for record in records:
            yield from self.read_record(record, arrived_s, origin)

    def read_record(self, record: Any, arrived_s: float, origin: str) -> Iterator[Reading | Rejection]:
        """The reading in one record, and a rejection for its time or each of its values that cannot be used."""
        try:
            at_s = arrived_s if self._time is None else _seconds(self._time.search(record), self._unit)
        except (ValueError, TypeError, OverflowError, JMESPathError) as error:
            yield Rejection(origin, f"its time cannot be read: {_words(error)}")
            return
        values: dict[int, float] = {}
        for number, path, quality in self._paths:
            channel = self._channels[number]
            try:
                found = self._find(record, channel, path)
                if found is None:  # no reading of this channel; what is held of it stays valid
                    continue
                is_good = quality is None or _plain(quality.search(record)) in self._good
                values[number] = _number(found) if is_good else math.nan
            except (ValueError, TypeError, OverflowError, JMESPathError) as error:
                yield Rejection(origin, f"channel {channel!r} cannot be read: {_words(error)}")
        if values:
            yield Reading(at_s, values)

    def _find(self, record: Any, channel: str, path: _Expression | None) -> Any:
        if path is not None:
            return path.search(record)
        if isinstance(record, Mapping):
            return record.get(channel)
        if len(self._numbers) == 1:
            return record
        raise ValueError(f"{str(record)[:40]!r} is no record of several channels.")


def _compiled(expression: str, where: str) -> _Expression | None:
    if not expression:
        return None
    try:
        compiled: _Expression = jmespath.compile(expression)
    except JMESPathError as error:
        raise SettingsError(
            f"{where}: {expression!r} is no JMESPath expression ({_words(error)}). Names with other characters than "
            'letters, digits and "_" go in double quotes.'
        ) from None
    return compiled


def _number(value: Any) -> float:
    """The value as a number, NaN where it says that there is none. Raises ValueError for anything else."""
    if isinstance(value, str):
        if value.strip().lower() in _ABSENT:
            return math.nan
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is no number.") from None
    if not isinstance(value, (int, float)):
        raise ValueError(f"{str(value)[:40]!r} is no number.")
    if math.isinf(number := float(value)):
        raise ValueError(f"{value} is no finite number.")
    return number


def _seconds(value: Any, unit: str) -> float:
    """Seconds since the epoch of a number of `unit`, or of an ISO 8601 text; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            moment = datetime.fromisoformat(value.strip()[:64])
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no time.")
    if unit == "auto":
        unit = next((name for least, name in _AUTO if value >= least), "s")
    if abs(seconds := float(value) / _UNITS[unit]) > MOST_SECONDS:
        raise ValueError(f"{value} lies beyond the calendar.")
    return seconds


def _plain(value: Any) -> str:
    """How marks of quality are compared: 192 and "192", "Good" and "good" are the same."""
    return str(value).strip().lower()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if text.endswith(".") else f"{text}."
