"""Files of readings replayed as rows or as windows, at a chosen rate.

The moment of capture is the moment of the replay. An origin names the file and the row, counted from 0 without the
header; of a window, its first row.
"""

import itertools
import time
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import ReplaySettings
from edge.sources.base import Pacer, RowOrigins
from edge.sources.health import SourceHealth
from edge.sources.tables import Chunk, NpzTable, Table, open_table
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch

CHUNK_ROWS = 4096  # read at once; more where the windows of a batch take more, within CHUNK_VALUES readings
CHUNK_VALUES = 2**19


class RowReplay:
    """Each row a sample (tabular)."""

    modality = Modality.TABULAR
    health = SourceHealth()  # a file is there, or the source fails

    def __init__(self, settings: ReplaySettings, spec: InputSpec, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer, self.is_paced = settings, pacer, pacer.is_paced
        self._table = open_table(settings.path, spec.channels, settings.array, missing=spec.missing)
        if self._table.rank != 2:
            raise DataError(f"{settings.path}: holds windows, and the bundle of source {settings.id!r} wants rows.")

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        for chunk in _repeated(self._table, self._settings, CHUNK_ROWS):
            rejections = [
                Rejection(f"{self._settings.path.name}:{chunk.rows[position]}", reason)
                for position, reason in chunk.unreadable
            ]
            usable = np.ones(len(chunk.rows), dtype=bool)
            usable[[position for position, _ in chunk.unreadable]] = False
            values, rows = (chunk.values, chunk.rows) if usable.all() else (chunk.values[usable], chunk.rows[usable])
            batches = _paced(self._settings, self.modality, values, rows, self._pacer, rejections)
            if not (yield from batches):
                return


class WindowReplay:
    """Each window a sample (series): `window_length` rows, every `window_stride` rows, none across two rounds."""

    modality = Modality.SERIES
    health = SourceHealth()  # a file is there, or the source fails

    def __init__(self, settings: ReplaySettings, spec: InputSpec, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer, self.is_paced = settings, pacer, pacer.is_paced
        self._length = spec.window_length
        self._cutter = WindowCutter(spec.window_length, spec.window_stride)
        self._table = open_table(settings.path, spec.channels, settings.array)
        rows = min(pacer.batch_size * max(spec.window_stride, 1), CHUNK_VALUES // len(spec.channels))
        self._chunk_rows = max(CHUNK_ROWS, rows) if self._table.rank == 2 else CHUNK_ROWS
        if isinstance(self._table, NpzTable) and self._table.rank == 3 and self._table.shape[1] != self._length:
            raise DataError(
                f"{settings.path}: windows of {self._table.shape[1]} time points, and the bundle of source "
                f"{settings.id!r} wants {self._length}. Cut them anew, or replay the readings themselves."
            )

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        for chunk in _repeated(self._table, self._settings, self._chunk_rows):
            if self._table.rank == 3:
                values, rows = chunk.values, chunk.rows
            else:
                if chunk.rows[0] == 0:  # a new round
                    self._cutter.restart()
                values, rows, _ = self._cutter.cut(chunk.values, chunk.rows)
            if not (yield from _paced(self._settings, self.modality, values, rows, self._pacer, [])):
                return


def _repeated(table: Table, settings: ReplaySettings, rows: int) -> Iterator[Chunk]:
    for _ in itertools.repeat(None) if settings.loop else range(1):
        empty = True
        for chunk in table.chunks(rows):
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
    """The samples in batches as the pacer lets them through; returns whether the source goes on."""
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
