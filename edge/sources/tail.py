"""Rows of a CSV file that another program adds to.

The place to resume from is stored in one transaction with the results of the rows before (`SampleBatch.cursor`): a
power cut neither loses a row nor counts one twice. Windows do not reach from one file into the next.
"""

import threading
import time
from collections.abc import Generator, Iterator

import numpy as np

from edge.settings.sources import TailSettings
from edge.sources.base import Pacer
from edge.sources.follower import READ_BYTES, Cursor, FileFollower, Idle, Line, Lines, Lost, Opened, Rotated, Truncated
from edge.sources.health import HealthRecord, SourceHealth
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.logs import EventLog, Throttle
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch
from shared.tables.reader import as_float32
from shared.tables.rows import ChannelColumns, RowParser, Rows

__all__ = ["READ_BYTES", "Cursor", "Line", "TailSource"]

log = EventLog("tail")


class TailSource:
    """Source with one sample per new row (tabular) or per window of new rows (series)."""

    is_paced = True

    def __init__(
        self,
        settings: TailSettings,
        modality: Modality,
        spec: InputSpec,
        pacer: Pacer,
        stop: threading.Event,
        cursor: str = "",
    ) -> None:
        self.source_id, self.modality = settings.id, modality
        self._settings, self._spec, self._pacer, self._stop = settings, spec, pacer, stop
        self._cutter = WindowCutter(spec.window_length, spec.window_stride) if modality is Modality.SERIES else None
        self._columns = ChannelColumns(spec.channels, spec.categories)
        self._health, self._throttle = HealthRecord(), Throttle()
        self._parser: RowParser | None = None
        self._held: Lines | None = None  # first rows until their layout is decided; no cursor lies behind them
        self._encoding = ""
        stride = 1 if self._cutter is None else max(spec.window_stride, 1)
        self._follower = FileFollower(
            settings.path,
            max_lines=pacer.batch_size * stride,  # no more samples can come of them than a batch has
            cursor=cursor,
            from_start=settings.from_start,
            encoding=settings.table.encoding,
        )

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`. Raises DataError for a file without the bundle's columns, or that cannot be read."""
        changed_s = time.monotonic()
        events = self._follower.events()
        try:
            while self._pacer.goes_on():
                match next(events):
                    case Lines() as lines:
                        changed_s = time.monotonic()
                        self._health.is_in("running")
                        if not (yield from self._batches(lines)):
                            return
                    case Opened() as opened:
                        if self._held is not None and not (yield from self._batches(Lines((), False), opened)):
                            return
                        self._open(opened)
                    case Truncated(path):
                        if self._throttle.allow("truncated"):
                            log.warning(
                                "file_truncated", source=self.source_id, path=path, advice="it is read from its start"
                            )
                    case Rotated(path):
                        log.info("file_rotated", source=self.source_id, path=path)
                    case Lost(path):
                        log.warning(
                            "file_lost",
                            source=self.source_id,
                            path=path,
                            advice="the one there now is read from its start",
                        )
                    case Idle(reason):
                        self._wait(reason, time.monotonic() - changed_s)
        finally:
            self._follower.close()

    def _wait(self, reason: str, silent_s: float) -> None:
        if reason:
            self._health.is_in("waiting", reason)
        elif self._follower.is_open and 0 < self._settings.silent_after_s <= silent_s:
            self._health.is_in("silent", f"no new row for {silent_s:.0f} s")
        self._stop.wait(self._settings.poll_s)

    def _open(self, opened: Opened) -> None:
        """Read the header of a file. One that was truncated may have none: then its rows are read as before."""
        old = self._parser
        hint = (old.numbers.decimal if old is not None else "") or self._spec.decimal
        try:
            parser = RowParser(self._settings.path, opened.header, self._settings.table, hint=hint, is_live=True)
            parser.select(self._columns.numeric, self._columns.texts, missing=self._spec.missing)
            self._parser = parser
        except DataError:
            if not opened.is_truncated or old is None:
                raise
            self._follower.rewind()
        self._encoding = opened.encoding
        if self._cutter is not None:
            self._cutter.resume(opened.skip)

    def _parse(self, lines: Lines) -> Rows:
        assert self._parser is not None  # lines come after a header
        is_new = self._parser.layout is None
        rows = self._parser.parse([line.text for line in lines.lines], at_start=lines.at_start)
        for note in self._parser.describe(self._encoding) if is_new else ():
            log.info("table_format", source=self.source_id, path=self._settings.path, format=note)
        return rows

    def _batches(self, lines: Lines, following: Opened | None = None) -> Generator[SampleBatch, None, bool]:
        """Yield the samples of some lines, with a cursor behind them; return whether the source goes on.

        First rows whose layout is undecided are held back until the next line, or until a `following` file is open.
        """
        assert self._parser is not None  # lines come after a header
        if self._held is not None:
            held, self._held = self._held, None
            lines = Lines(held.lines + lines.lines, held.at_start, held.too_long + lines.too_long)
        texts = [line.text for line in lines.lines]
        if following is None and self._parser.needs_more(texts, at_start=lines.at_start):
            self._held = lines
            return True
        name = self._settings.path.name
        rows = self._parse(lines)
        starts = np.array([line.start for line in lines.lines], dtype=np.int64)[rows.positions]
        values = as_float32(self._columns.assemble(rows))
        rejections = [Rejection(f"{name}@{start}", "is a line without an end.") for start in lines.too_long]
        rejections += [Rejection(f"{name}@{starts[fault.row]}", fault.reason) for fault in rows.faults]
        offset, skip = self._follower.offset, 0
        if self._cutter is None:
            usable = np.ones(len(values), dtype=bool)
            usable[[fault.row for fault in rows.faults]] = False
            samples, origins = values[usable], starts[usable]
        else:
            samples, origins, _ = self._cutter.cut(values, starts)
            offset, skip = self._cutter.position(np.int64(offset))
        if following is not None:
            offset, skip = self._follower.offset, following.skip
        if not self._pacer.wait(len(samples)):
            return False
        yield SampleBatch(
            self.source_id,
            self.modality,
            samples,
            np.full(len(samples), time.time()),
            [f"{name}@{start}" for start in origins.tolist()],
            rejections=rejections,
            cursor=self._follower.cursor(int(offset), skip),
        )
        return True
