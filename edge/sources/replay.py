"""Files of readings replayed as rows or as windows, at a chosen rate.

The moment of capture is the moment of the replay. An origin names the file and the row, counted from 1 without the
header; of a window, its first row.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import ReplaySettings
from edge.sources.base import Pacer, RowOrigins
from edge.sources.health import SourceHealth
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch
from shared.tables.order import check_order
from shared.tables.reader import CHUNK_ROWS, Chunk, NpzTable, Table, open_table

log = EventLog("replay")

MAX_BUFFERED_VALUES = 2**19  # readings buffered for a whole batch of windows; at least CHUNK_ROWS rows


class RowReplay:
    """Source with one sample per row (tabular)."""

    modality = Modality.TABULAR
    health = SourceHealth()  # a file is there, or the source fails

    def __init__(self, settings: ReplaySettings, spec: InputSpec, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer, self.is_paced = settings, pacer, pacer.is_paced
        self._table = _open(settings, spec)
        if self._table.rank != 2:
            raise DataError(f"{settings.path}: holds windows, and the bundle of source {settings.id!r} wants rows.")

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        for chunk in _repeated(self._table.chunks, self._settings):
            rejections = [
                Rejection(f"{self._settings.path.name}:{chunk.rows[position] + 1}", reason)
                for position, reason in chunk.unreadable
            ]
            usable = np.ones(len(chunk.rows), dtype=bool)
            usable[[position for position, _ in chunk.unreadable]] = False
            values, rows = (chunk.values, chunk.rows) if usable.all() else (chunk.values[usable], chunk.rows[usable])
            batches = _paced(self._settings, self.modality, values, rows, self._pacer, rejections)
            if not (yield from batches):
                return


class WindowReplay:
    """Source with one sample per window (series): `window_length` rows every `window_stride` rows."""

    modality = Modality.SERIES
    health = SourceHealth()  # a file is there, or the source fails

    def __init__(self, settings: ReplaySettings, spec: InputSpec, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer, self.is_paced = settings, pacer, pacer.is_paced
        self._length = spec.window_length
        self._cutter = WindowCutter(spec.window_length, spec.window_stride)
        stride, most_rows = max(spec.window_stride, 1), max(MAX_BUFFERED_VALUES // len(spec.channels), CHUNK_ROWS)
        rows_a_batch = min(pacer.batch_size, max(most_rows // stride, 1)) * stride
        self._portion_rows = rows_a_batch * max(1, CHUNK_ROWS // rows_a_batch)
        self._table = _open(settings, spec)
        if not isinstance(self._table, NpzTable):
            check_order(settings.path, [*spec.channels, *spec.categories], settings.table)
        if isinstance(self._table, NpzTable) and self._table.rank == 3 and self._table.shape[1] != self._length:
            raise DataError(
                f"{settings.path}: windows of {self._table.shape[1]} time points, and the bundle of source "
                f"{settings.id!r} wants {self._length}. Cut them again, or replay the readings themselves."
            )

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        for chunk in _repeated(self._chunks, self._settings):
            if self._table.rank == 3:
                values, rows = chunk.values, chunk.rows
            else:
                if chunk.rows[0] == 0:  # a new round
                    self._cutter.restart()
                values, rows, _ = self._cutter.cut(chunk.values, chunk.rows)
            if not (yield from _paced(self._settings, self.modality, values, rows, self._pacer, [])):
                return

    def _chunks(self) -> Iterator[Chunk]:
        chunks = self._table.chunks()
        return chunks if self._table.rank == 3 else _in_portions(chunks, self._portion_rows)


def _open(settings: ReplaySettings, spec: InputSpec) -> Table:
    """Open the file, and log how it is read."""
    table = open_table(
        settings.path,
        spec.channels,
        settings.array,
        missing=spec.missing,
        categories=spec.categories,
        settings=settings.table,
        hint=spec.decimal,
    )
    for note in table.notes:
        log.info("table_format", source=settings.id, path=settings.path, format=note)
    return table


def _in_portions(chunks: Iterable[Chunk], rows: int) -> Iterator[Chunk]:
    """Yield the readings in portions of `rows` rows; the rest comes last, also before a failure.

    An unreadable cell is NaN; the preprocessing rejects or accepts it.
    """
    values, numbers, count = list[NDArray[np.float32]](), list[NDArray[np.int64]](), 0
    failure: DataError | None = None
    try:
        for chunk in chunks:
            values.append(chunk.values)
            numbers.append(chunk.rows)
            count += len(chunk.rows)
            if count < rows:
                continue
            joined, joined_numbers = np.concatenate(values), np.concatenate(numbers)
            end = count - count % rows
            for start in range(0, end, rows):
                yield Chunk(joined[start : start + rows], joined_numbers[start : start + rows])
            values, numbers, count = [joined[end:]], [joined_numbers[end:]], count - end
    except DataError as error:
        failure = error
    if count:
        yield Chunk(np.concatenate(values), np.concatenate(numbers))
    if failure is not None:
        raise failure


def _repeated(chunks: Callable[[], Iterator[Chunk]], settings: ReplaySettings) -> Iterator[Chunk]:
    for _ in itertools.repeat(None) if settings.loop else range(1):
        empty = True
        for chunk in chunks():
            empty = False
            yield chunk
        if empty:
            raise DataError(f"{settings.path}: holds no readings.")


def _paced(
    settings: ReplaySettings,
    modality: Modality,
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    pacer: Pacer,
    rejections: list[Rejection],
) -> Generator[SampleBatch, None, bool]:
    """Yield batches of samples at the rate of the pacer. Return whether the source goes on."""
    name = settings.path.name
    for start in range(0, len(rows), pacer.batch_size):
        part = slice(start, start + pacer.batch_size)
        if not pacer.wait(len(rows[part])):
            return False
        moments = np.full(len(rows[part]), time.time())
        yield SampleBatch(
            settings.id, modality, values[part], moments, RowOrigins(name, rows[part]), rejections=rejections
        )
        rejections = []
    if rejections:  # nothing of the chunk could be read
        yield SampleBatch(settings.id, modality, values[:0], np.empty(0), [], rejections=rejections)
    return True
