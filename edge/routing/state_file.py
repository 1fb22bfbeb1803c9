"""File with the state of one source, which belongs to one calibration."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.bundle import npz_bytes
from shared.files import write_durably

_CALIBRATION_ID = "calibration_id"


class StateFile:
    """Named arrays of one source in an NPZ file, written only if they changed. Not safe to write from two threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = b""

    def read(self, calibration_id: str) -> dict[str, NDArray[np.generic]] | None:
        """Return the arrays of a calibration; None if there is no file, or one of another calibration.

        A damaged file raises errors of many types (zipfile, zlib, numpy).
        """
        try:
            self._saved = self.path.read_bytes()
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(self._saved), allow_pickle=False) as archive:
            if str(archive[_CALIBRATION_ID]) != calibration_id:
                return None
            return {name: archive[name] for name in archive.files if name != _CALIBRATION_ID}

    def write(self, calibration_id: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write the arrays of a calibration if they changed; raises OSError."""
        data = npz_bytes({_CALIBRATION_ID: np.array(calibration_id), **arrays})
        if data != self._saved:
            write_durably(self.path, data)
            self._saved = data
