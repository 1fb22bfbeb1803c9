"""Lines on standard input: `sensor-reader | vedette edge run --config edge.toml`."""

import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO

from edge.settings.sources import StdinSettings
from edge.sources.alignment import Reading
from edge.sources.base import Pacer
from edge.sources.live import LiveReadings
from edge.sources.records import MAX_PAYLOAD_BYTES
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import Rejection
from shared.tables.columns import check_columns
from shared.tables.dialect import HEAD_BYTES, TextEncoding, detect_encoding
from shared.tables.rows import ChannelColumns, RowParser

ORIGIN = "stdin"
READ_BYTES = 2**16

log = EventLog("stdin")


class StdinSource(LiveReadings):
    """Source with one record per line, JSON or CSV; it ends with its input."""

    def __init__(
        self, settings: StdinSettings, modality: Modality, spec: InputSpec, pacer: Pacer, input: IO[bytes] | None = None
    ) -> None:
        """Read standard input, or `input` if given."""
        super().__init__(settings, modality, spec, pacer)
        self._is_json, self._required = settings.format == "json", not (settings.channels or settings.name_path)
        self._records = self._record_reader(range(len(spec.channels)))
        self._settings, self._columns = settings, ChannelColumns(spec.channels, spec.categories)
        self._table: RowParser | None = None
        self._held: list[tuple[str, str, float]] = []  # first rows until their layout is decided: line, origin, time
        self._encoding = _InputEncoding(settings.table.encoding)
        self._input = input
        self._over = threading.Event()

    def _start(self) -> None:
        # A read from a terminal or a pipe cannot be interrupted; the thread ends with the process.
        threading.Thread(target=self._read, name=f"stdin-{self.source_id}", daemon=True).start()

    def _end(self) -> None:
        self._over.set()

    def _read(self) -> None:
        # Without a buffer: a waiting buffered read holds a lock that the interpreter takes at exit.
        source = self._input if self._input is not None else io.FileIO(os.dup(sys.stdin.fileno()))
        try:
            first = 1 if self._is_json else 0  # rows count from 1, without the header
            for number, line in enumerate(_lines(source, self._encoding), start=first):
                if self._over.is_set():
                    return
                origin = f"{ORIGIN}:{number}"
                if line is None:
                    self._intake.put([Rejection(origin, f"is longer than {MAX_PAYLOAD_BYTES} bytes.")])
                elif not line.strip():
                    continue
                elif self._is_json:
                    self._intake.put(list(self._records.read(line, time.time(), origin)))
                else:
                    self._intake.put(self._read_row(self._encoding.current.decode(line), origin))
        except (OSError, DataError) as error:
            self._intake.fail(error if isinstance(error, DataError) else DataError(f"{ORIGIN}: {error.strerror}."))
        else:
            self._intake.put(self._read_held())
            self._intake.end()

    def _read_row(self, line: str, origin: str) -> list[Reading | Rejection]:
        """Return the readings of one line of CSV; none for the header, or while the layout is undecided."""
        if self._table is None:
            self._table = RowParser(ORIGIN, line, self._settings.table, hint=self._spec.decimal, is_live=True)
            self._records.cells = self._table.numbers
            if self._required:
                try:
                    check_columns(ORIGIN, self._table.names, [*self._columns.numeric, *self._columns.texts])
                except DataError as error:
                    raise DataError(f"{error} Or set the path of each value under channels.") from None
            return []
        self._held.append((line, origin, time.time()))
        if self._table.needs_more([held for held, _, _ in self._held], at_start=True):
            return []
        return self._read_held()

    def _read_held(self) -> list[Reading | Rejection]:
        """Return the readings of the rows that were held back, and of the last one."""
        if self._table is None or not self._held:
            return []
        held, self._held = self._held, []
        is_start = self._table.layout is None
        self._table.fit([line for line, _, _ in held], at_start=True)
        for note in self._table.describe(self._encoding.current.name) if is_start else ():
            log.info("table_format", source=self.source_id, format=note)
        found: list[Reading | Rejection] = []
        for index, (line, origin, time_s) in enumerate(held):
            try:
                cells = self._table.cells(line, at_start=is_start and index == 0)
            except ValueError as error:
                found.append(Rejection(origin, str(error)))
                if self._is_series and self._settings.records_are_rows and not self._records.has_times:
                    found.append(Reading(time_s, {}))  # the row keeps its place in a series: no window skips it
            else:
                found += [] if cells is None else self._records.read_record(cells, time_s, origin)
        return found


class _InputEncoding:
    """Encoding of the input, detected from its first bytes."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self.current = TextEncoding("utf-8")
        self._is_known = False

    def without_mark(self, chunk: bytes) -> bytes:
        """Detect the encoding from the first chunk, and return the chunk without its byte order mark."""
        if self._is_known:
            return chunk
        self._is_known, self.current = True, detect_encoding(chunk[:HEAD_BYTES], self._wanted)
        return chunk[self.current.bom_bytes :]


def _lines(source: IO[bytes], encoding: _InputEncoding) -> Iterator[bytes | None]:
    """Yield lines, the last one with or without its end; None for one that is longer than MAX_PAYLOAD_BYTES."""
    rest, is_long = b"", False
    while chunk := source.read(READ_BYTES):
        chunk = encoding.without_mark(chunk)
        whole, rest = encoding.current.split_lines(rest + chunk)
        for line in whole:
            yield None if is_long or len(line) > MAX_PAYLOAD_BYTES else line
            is_long = False
        if len(rest) > MAX_PAYLOAD_BYTES:
            rest, is_long = b"", True
    if rest or is_long:
        yield None if is_long else rest
