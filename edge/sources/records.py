"""Readings from records of sensors: the fields of channels, their time and their quality.

Fields are named by JMESPath expressions (jmespath.org), which search and evaluate nothing but the record itself.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jmespath
from jmespath.exceptions import JMESPathError

from edge.settings.sources import ChannelSettings, ReadingsBase
from edge.sources.alignment import Reading
from shared.errors import SettingsError
from shared.samples import Rejection
from shared.tables.cells import NumberReader
from shared.tables.rows import ChannelColumns, one_hot
from shared.tables.times import to_seconds

MAX_PAYLOAD_BYTES = 2**20
MAX_RECORDS = 10_000  # in one payload


class _Expression(Protocol):
    def search(self, value: Any) -> Any: ...


class RecordReader:
    """Reads records: JSON objects, or rows of a table by the names of its columns."""

    def __init__(
        self,
        settings: ReadingsBase,
        channels: Sequence[str],
        numbers: Sequence[int],
        *,
        categories: Mapping[str, Sequence[str]] | None = None,
        decimal: str = "",
    ) -> None:
        """Prepare the paths of a source.

        Args:
            settings: of the source.
            channels: all channels of the bundle.
            numbers: positions of the channels that these records hold.
            categories: values of each category of the bundle.
            decimal: decimal mark of the training table.

        Raises:
            SettingsError: a path is not a JMESPath expression.
        """
        self._channels, self._numbers = channels, tuple(numbers)
        self.cells = NumberReader(settings.table.decimal, delimiter=None, hint=decimal)  # reads values that are texts
        self._dates, self._columns = settings.table.dates, ChannelColumns(channels, categories or {})
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
        """Yield the readings in a JSON payload: a record, a list of records, or a number if there is one channel."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            yield Rejection(origin, f"is {len(payload)} bytes long; the limit is {MAX_PAYLOAD_BYTES}.")
            return
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            value = payload.decode("utf-8", "replace").strip()  # may be a number that JSON does not know, such as ".5"
            if len(self._numbers) != 1:
                yield Rejection(origin, f"is not JSON: {value[:40]!r}.")
                return
        records = value if isinstance(value, list) else [value]
        if len(records) > MAX_RECORDS:
            yield Rejection(origin, f"holds {len(records)} records; the limit is {MAX_RECORDS}.")
            records = records[:0]
        for record in records:
            yield from self.read_record(record, arrived_s, origin)

    def read_record(self, record: Any, arrived_s: float, origin: str) -> Iterator[Reading | Rejection]:
        """Yield the reading in one record, and a rejection for its time or each value that cannot be used."""
        try:
            at_s = arrived_s if self._time is None else to_seconds(self._time.search(record), self._unit, self._dates)
        except (ValueError, TypeError, OverflowError, JMESPathError) as error:
            yield Rejection(origin, f"its time cannot be read: {_words(error)}")
            return
        values: dict[int, float] = {}
        for number, path, quality in self._paths:
            channel = self._channels[number]
            try:
                found = self._find(record, channel, path)
                if found is None:  # no reading of this channel; its held value stays valid
                    continue
                is_good = quality is None or _plain(quality.search(record)) in self._good
                values[number] = self._value(found, channel) if is_good else math.nan
            except (ValueError, TypeError, OverflowError, JMESPathError) as error:
                yield Rejection(origin, f"channel {channel!r} cannot be read: {_words(error)}")
        if values:
            yield Reading(at_s, values)

    def _find(self, record: Any, channel: str, path: _Expression | None) -> Any:
        if path is not None:
            return path.search(record)
        if isinstance(record, Mapping):
            category = self._columns.category(channel)
            return record.get(category[0] if category is not None else channel)
        if len(self._numbers) == 1:
            return record
        raise ValueError(f"{str(record)[:40]!r} is no record of several channels.")

    def _value(self, found: Any, channel: str) -> float:
        """Return a channel's value, NaN if it is missing. Raises ValueError for a value that is not a finite number."""
        category = self._columns.category(channel)
        if category is not None:
            return float(one_hot([str(found).strip()], category[1])[0])
        number = self.cells.read_value(found)
        if math.isinf(number):
            raise ValueError(f"{str(found)[:40]} is not finite.")
        return number


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


def _plain(value: Any) -> str:
    """Return a quality mark for comparison: 192 equals "192", "Good" equals "good"."""
    return str(value).strip().lower()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if text.endswith(".") else f"{text}."
