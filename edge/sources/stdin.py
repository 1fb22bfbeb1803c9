"""Lines that another program writes: `sensor-reader | vedette edge run --config edge.toml`."""

import csv
import sys
import threading
import time
from typing import IO

from edge.source_settings import StdinSettings
from edge.sources.base import Pacer
from edge.sources.live import LiveReadings
from edge.sources.records import MAX_PAYLOAD_BYTES, RecordReader
from shared.bundle import InputSpec
from shared.samples import Modality, Rejection

ORIGIN = "stdin"


class StdinSource(LiveReadings):
    """A line a record, JSON or CSV; the source ends with its input."""

    def __init__(
        self, settings: StdinSettings, modality: Modality, spec: InputSpec, pacer: Pacer, lines: IO[bytes] | None = None
    ) -> None:
        """`lines`: another input than the process's own."""
        super().__init__(settings, modality, spec, pacer)
        self._is_json = settings.format == "json"
        self._records = RecordReader(settings, spec.channels, range(len(spec.channels)))
        self._lines = lines if lines is not None else sys.stdin.buffer
        self._over = threading.Event()

    def _start(self) -> None:
        # A read from a terminal or a pipe cannot be interrupted; the thread ends with the process.
        threading.Thread(target=self._read, name=f"stdin-{self.source_id}", daemon=True).start()

    def _end(self) -> None:
        self._over.set()

    def _read(self) -> None:
        header: list[str] | None = None
        number = 0
        while (line := self._lines.readline(MAX_PAYLOAD_BYTES + 1)) and not self._over.is_set():
            number += 1
            origin = f"{ORIGIN}:{number}"
            if len(line) > MAX_PAYLOAD_BYTES:
                self._skip_rest(line)
                self._intake.put([Rejection(origin, f"is longer than {MAX_PAYLOAD_BYTES} bytes.")])
                continue
            if not line.strip():
                continue
            if self._is_json:
                self._intake.put(list(self._records.read(line, time.time(), origin)))
                continue
            cells = _cells(line)
            if header is None:
                header = cells
            else:
                record = dict(zip(header, cells, strict=False))
                self._intake.put(list(self._records.read_record(record, time.time(), origin)))
        self._intake.end()

    def _skip_rest(self, line: bytes) -> None:
        while line and not line.endswith(b"\n"):
            line = self._lines.readline(MAX_PAYLOAD_BYTES)


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    delimiter = max(",;\t", key=text.count)
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return []
