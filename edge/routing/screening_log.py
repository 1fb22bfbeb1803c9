"""CSV log of screened samples for evaluation: origin, score, p_value, route, and sample_id if it was sent."""

import csv
import io
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.disk import disk_error_text
from edge.routing.router import ROUTES
from shared.errors import StorageError
from shared.logs import EventLog, Throttle

HEADER = ("origin", "score", "p_value", "route", "sample_id")
_MAX_LINE_BYTES = 2**16

log = EventLog("screening_log")


class ScreeningLog:
    """CSV file with a line for each sample, written in batches. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """Open `path` for appending, write the header of a new file, and cut off an incomplete last line.

        Raises StorageError.
        """
        self._path = path
        self._lock = threading.Lock()
        self._throttle = Throttle()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(path)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
            if self._file.tell() == 0:
                self._file.write(",".join(HEADER) + "\n")
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}). Correct screening_log.path.") from None

    def write(
        self,
        origins: Sequence[str],
        scores: NDArray[np.float64],
        p_values: NDArray[np.float64],
        codes: NDArray[np.int8],
        sample_ids: Mapping[int, uuid.UUID],
    ) -> None:
        """Append a line for each sample; `sample_ids` by position, for the samples that are sent."""
        buffer = io.StringIO()
        lines = csv.writer(buffer, lineterminator="\n")
        rows = zip(origins, scores.tolist(), p_values.tolist(), codes.tolist(), strict=True)
        lines.writerows(
            (origin, f"{score:.9g}", f"{p:.9g}", ROUTES[code].value, sample_ids.get(position, ""))
            for position, (origin, score, p, code) in enumerate(rows)
        )
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(buffer.getvalue())
                self._file.flush()
            except OSError as error:
                if self._throttle.allow("write"):
                    text = disk_error_text(error, self._path)
                    log.error("screening_log_failed", path=self._path, error=text, advice="free some space")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            try:
                self._file.close()
            except OSError as error:
                log.error("screening_log_failed", path=self._path, error=error)


def _cut_half_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        start = max(0, file.seek(0, io.SEEK_END) - _MAX_LINE_BYTES)
        file.seek(start)
        file.truncate(start + file.read().rfind(b"\n") + 1)
