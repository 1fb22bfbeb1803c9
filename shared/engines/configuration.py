"""Configuration of the engines, one for devices, calibration, parity gate, evaluation and benchmarks."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from shared.engines.pieces import PieceSizes, usable_cores


@dataclass(frozen=True, slots=True)
class EngineConfiguration:
    """Threads, precision and caching of the engines.

    Devices use the defaults. A calibration is valid for the configuration that it was made with, so other
    values are for measurements only. `cache_folder` alone does not affect scores.

    Attributes:
        cache_folder: Folder for compiled models, or None to compile at each start.
        threads: CPU threads, or None for one on each usable core.
        streams: Pieces that OpenVINO computes at the same time, or None for its own choice for throughput. ONNX
            Runtime computes one piece on each thread.
        precision: Type that OpenVINO computes floating-point layers in. Without it the CPU may silently choose
            bfloat16, and scores would change from machine to machine.
        pieces: Bounds of the pieces that a batch is cut into.
    """

    cache_folder: Path | None = None
    threads: int | None = None
    streams: int | None = None
    precision: str = "f32"
    pieces: PieceSizes = field(default_factory=PieceSizes)

    @property
    def thread_count(self) -> int:
        """CPU threads in use."""
        return self.threads if self.threads is not None else usable_cores()

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        values = dataclasses.asdict(self)
        return {**values, "cache_folder": None if self.cache_folder is None else str(self.cache_folder)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_json` wrote."""
        folder = values["cache_folder"]
        return cls(
            **{
                **values,
                "cache_folder": None if folder is None else Path(folder),
                "pieces": PieceSizes(**values["pieces"]),
            }
        )
