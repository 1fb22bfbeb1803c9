"""Lines that another program writes: `sensor-reader | vedette edge run --config edge.toml`."""

import csv
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO

from edge.settings.sources import StdinSettings
from edge.sources.base import Pacer
from edge.sources.live import LiveReadings
from edge.sources.records import MAX_PAYLOAD_BYTES, RecordReader
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Rejection

ORIGIN = "stdin"
READ_BYTES = 2**16


class StdinSource(LiveReadings):
    """A line a record, JSON or CSV; the source ends with its input."""

    def __init__(
        self, settings: StdinSettings, modality: Modality, spec: InputSpec, pacer: Pacer, input: IO[bytes] | None = None
    ) -> None:
        """`input`: another one than the process's own."""
        super().__init__(settings, modality, spec, pacer)
        self._is_json, self._required = settings.format == "json", not settings.channels
        self._records = RecordReader(settings, spec.channels, range(len(spec.channels)))
        self._input = input
        self._over = threading.Event()

    def _start(self) -> None:
        # A read from a terminal or a pipe cannot be interrupted; the thread ends with the process.
        threading.Thread(target=self._read, name=f"stdin-{self.source_id}", daemon=True).start()

    def _end(self) -> None:
        self._over.set()

    def _read(self) -> None:
        # Without a buffer: whoever waits in a buffer's read holds its lock, which the interpreter wants at its end.
        source = self._input if self._input is not None else io.FileIO(os.dup(sys.stdin.fileno()))
        try:
            table: _Table | None = None
            for number, line in enumerate(_lines(source), start=1):
                if self._over.is_set():
                    return
                origin = f"{ORIGIN}:{number}"
                if line is None:
                    self._intake.put([Rejection(origin, f"is longer than {MAX_PAYLOAD_BYTES} bytes.")])
                elif not line.strip():
                    continue
                elif self._is_json:
                    self._intake.put(list(self._records.read(line, time.time(), origin)))
                elif table is None:
                    table = _Table(line)
                    self._check(table.header)
                else:
                    self._intake.put(list(self._records.read_record(table.record(line), time.time(), origin)))
        except (OSError, DataError) as error:
            self._intake.fail(error if isinstance(error, DataError) else DataError(f"{ORIGIN}: {error.strerror}."))
        else:
            self._intake.end()

    def _check(self, header: list[str]) -> None:
        missing = [channel for channel in self._channels if channel not in header]
        if missing and self._required:
            raise DataError(
                f"{ORIGIN}: lacks column {', '.join(map(repr, missing[:12]))}, and has {', '.join(header[:12])}. "
                "Rename them, or say under channels where they are."
            )


class _Table:
    """Lines of CSV by the names in its header, which decides the delimiter."""

    def __init__(self, header_line: bytes) -> None:
        text = header_line.decode("utf-8-sig", "replace")
        self._delimiter = max(",;\t", key=text.count)
        self.header = self._cells(text)

    def record(self, line: bytes) -> dict[str, str]:
        """The cells of a line by their columns; columns the line lacks are left out."""
        return dict(zip(self.header, self._cells(line.decode("utf-8", "replace")), strict=False))

    def _cells(self, text: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(csv.reader([text.rstrip("\r\n")], delimiter=self._delimiter), [])]
        except csv.Error:
            return []


def _lines(source: IO[bytes]) -> Iterator[bytes | None]:
    """Lines, the last one with or without its end; None for one that is longer than MAX_PAYLOAD_BYTES."""
    rest, is_long = b"", False
    while chunk := source.read(READ_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield None if is_long or len(line) > MAX_PAYLOAD_BYTES else line
            is_long = False
        if len(rest) > MAX_PAYLOAD_BYTES:
            rest, is_long = b"", True
    if rest or is_long:
        yield None if is_long else rest
