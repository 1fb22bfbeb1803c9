"""Readings from records of sensors: the fields of channels, their time and their quality.

Fields are named by JMESPath expressions (jmespath.org), which search and evaluate nothing but the record itself.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jmespath
from jmespath.exceptions import JMESPathError

from edge.settings.sources import ChannelSettings, ReadingsBase
from edge.sources.alignment import Reading
from edge.sources.senml import NAME, TIME, VALUE, resolved
from shared.errors import SettingsError
from shared.logs import EventLog
from shared.samples import Rejection
from shared.tables.cells import NumberReader
from shared.tables.rows import ChannelColumns, one_hot
from shared.tables.times import to_seconds

MAX_PAYLOAD_BYTES = 2**20
MAX_RECORDS = 10_000  # in one payload
MAX_LOGGED_NAMES = 20

log = EventLog("records")


class _Expression(Protocol):
    def search(self, value: Any) -> Any: ...


class RecordReader:
    """Reads records: JSON objects, or rows of a table by the names of its columns.

    `on_left_out` is called with a reason and a count for values and records that give no reading; those that cannot be
    read are rejections. With `whole_rows`, a record is one rejection if any of its values cannot be read, as a row of a
    table is; otherwise its other values are kept.
    """

    def __init__(
        self,
        settings: ReadingsBase,
        channels: Sequence[str],
        numbers: Sequence[int],
        *,
        categories: Mapping[str, Sequence[str]] | None = None,
        decimal: str = "",
        whole_rows: bool = False,
        keeps_places: bool = False,
        on_left_out: Callable[[str, int], None] = lambda reason, count: None,
    ) -> None:
        """Prepare the paths of a source.

        Args:
            settings: of the source.
            channels: all channels of the bundle.
            numbers: positions of the channels that these records hold.
            categories: values of each category of the bundle.
            decimal: decimal mark of the training table.
            whole_rows: whether each record is a row that is judged alone.
            keeps_places: whether a record without a value that can be read is a row of missing values in a series.
            on_left_out: see above.

        Raises:
            SettingsError: a path is not a JMESPath expression.
        """
        self._channels, self._numbers, self._on_left_out = channels, tuple(numbers), on_left_out
        self.cells = NumberReader(settings.table.decimal, delimiter=None, hint=decimal)  # reads values that are texts
        self._dates, self._columns = settings.table.dates, ChannelColumns(channels, categories or {})
        self._senml, self._unit = settings.senml, "s" if settings.senml else settings.time_unit
        of_source = f"source {settings.id!r}"
        self._records = _compiled(settings.records_path, f"{of_source}: records_path")
        self._records_path, self._source_id = settings.records_path, settings.id
        self._whole_rows, self._keeps_places = whole_rows, keeps_places
        self._name = _compiled(NAME if self._senml else settings.name_path, f"{of_source}: name_path")
        self._time = _compiled(TIME if self._senml else settings.time_path, f"{of_source}: time_path")
        self._message_time = _compiled(settings.message_time_path, f"{of_source}: message_time_path")
        self._good = {_plain(value) for value in settings.good_quality}
        self._strange_names: set[str] = set()
        self._paths: dict[int, tuple[_Expression | None, _Expression | None]] = {}
        self._by_name: dict[str, list[int]] = {}
        for number in self._numbers:
            own = settings.channels.get(channels[number], ChannelSettings())
            where = f"{of_source}: channel {channels[number]!r}"
            value_path = VALUE if self._senml else settings.value_path
            path = _compiled(own.path or (value_path if settings.names_channels else ""), f"{where}: path")
            quality = _compiled(own.quality_path or settings.quality_path, f"{where}: quality_path")
            self._paths[number] = path, quality
            category = self._columns.category(channels[number])
            self._by_name.setdefault(own.name or (category[0] if category else channels[number]), []).append(number)

    @property
    def has_times(self) -> bool:
        """Whether readings have the time that their record or message states."""
        return self._time is not None or self._message_time is not None

    def read(self, payload: bytes, arrived_s: float, origin: str) -> Iterator[Reading | Rejection]:
        """Yield the readings in a JSON payload: a record, a list of records, or a number if there is one channel."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            yield Rejection(origin, f"is {len(payload)} bytes long; the limit is {MAX_PAYLOAD_BYTES}.")
            return
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            value = payload.decode("utf-8", "replace").strip()  # may be a number that JSON does not know, such as ".5"
            if len(self._numbers) != 1 or self._name is not None or self._records is not None:
                yield Rejection(origin, f"is not JSON: {value[:40]!r}.")
                return
        try:
            records = self._records_in(value)
        except (ValueError, JMESPathError) as error:
            yield Rejection(origin, _words(error))
            return
        if len(records) > MAX_RECORDS:
            yield Rejection(origin, f"holds {len(records)} records; the limit is {MAX_RECORDS}.")
            return
        yield from self._read_all(records, value, arrived_s, origin)

    def read_record(self, record: Any, arrived_s: float, origin: str) -> Iterator[Reading | Rejection]:
        """Yield the reading in one record, and a rejection for its time or each value that cannot be used."""
        yield from self._read_all([record], record, arrived_s, origin)

    def _records_in(self, message: Any) -> list[Any]:
        """Return the records of a message; raises ValueError if `records_path` finds none."""
        if self._records is not None:
            found = self._records.search(message)
            if not isinstance(found, (list, Mapping)):
                raise ValueError(f"has no records at {self._records_path!r}.")
            message = found
        return message if isinstance(message, list) else [message]

    def _read_all(
        self, records: Sequence[Any], message: Any, arrived_s: float, origin: str
    ) -> Iterator[Reading | Rejection]:
        """Yield rejections, then the readings in the order of their times."""
        readings: list[Reading] = []
        by_time: dict[float, dict[int, float]] = {}
        for record in resolved(records, arrived_s) if self._senml else records:
            if self._senml and isinstance(record, str):
                yield Rejection(origin, record)
                continue
            try:
                at_s = self._time_of(record, message, arrived_s)
            except (ValueError, TypeError, OverflowError, JMESPathError) as error:
                yield Rejection(origin, f"its time cannot be read: {_words(error)}")
                continue
            values: dict[int, float] = {}
            faults = list(self._read_values(record, origin, values))
            if faults and self._whole_rows:
                yield faults[0]
                continue
            yield from faults
            if self._name is None:
                if values or (faults and self._keeps_places):
                    readings.append(Reading(at_s, values))
                elif not faults:
                    self._on_left_out("no value of any channel", 1)
                continue
            same = by_time.setdefault(at_s, {}) if values else {}
            self._on_left_out("replaced by a later value of the same time", len(same.keys() & values.keys()))
            same.update(values)
        readings += [Reading(at_s, values) for at_s, values in by_time.items()]
        if len(readings) > 1 and self.has_times:
            readings.sort(key=lambda reading: reading.at_s)
        yield from readings

    def _read_values(self, record: Any, origin: str, values: dict[int, float]) -> Iterator[Rejection]:
        """Fill in a record's values by channel; yield a rejection for each unusable one."""
        try:
            numbers = self._numbers if self._name is None else self._named(record)
        except JMESPathError as error:
            yield Rejection(origin, f"its channel's name cannot be read: {_words(error)}")
            return
        for number in numbers:
            path, quality = self._paths[number]
            channel = self._channels[number]
            try:
                found = self._find(record, channel, path)
                if found is None:  # no reading of this channel; its held value stays valid
                    if self._name is not None:
                        self._on_left_out("no value", 1)
                    continue
                is_good = quality is None or _plain(quality.search(record)) in self._good
                if not is_good:
                    self._on_left_out("bad quality", 1)
                values[number] = self._value(found, channel) if is_good else math.nan
            except (ValueError, TypeError, OverflowError, JMESPathError) as error:
                yield Rejection(origin, f"channel {channel!r} cannot be read: {_words(error)}")

    def _named(self, record: Any) -> Sequence[int]:
        """Return the channels that a record names; none if the bundle has no such channel."""
        assert self._name is not None
        name = str(self._name.search(record))
        numbers = self._by_name.get(name, [])
        if not numbers:
            self._on_left_out("name of no channel", 1)
            if name not in self._strange_names and len(self._strange_names) < MAX_LOGGED_NAMES:
                self._strange_names.add(name)
                log.info("name_of_no_channel", source=self._source_id, name=name[:100])
        return numbers

    def _time_of(self, record: Any, message: Any, arrived_s: float) -> float:
        """Return the time of a record: its own, that of its message, or that of its arrival."""
        own = self._time.search(record) if self._time is not None else None
        if own is None and self._message_time is not None:
            own = self._message_time.search(message)
        elif self._time is None:
            return arrived_s
        return to_seconds(own, self._unit, self._dates)

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
