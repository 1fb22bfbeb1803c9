"""How `vedette federated run` and the ServerApp, which Flower runs in a process of its own, hand things over.

One folder a run: the head to start from, a log of progress (a JSON object a line), the aggregated head, and the
outcome, which is written last. Arrays are safetensors, the rest JSON: nothing that executes on load.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.errors import FederationError
from shared.files import write_durably

RUN_FOLDER_KEY = "run-folder"  # in the run's configuration


@dataclass(frozen=True)
class RoundRecord:
    """One round: the metrics of each device that answered, by node id, and why others did not."""

    number: int
    seconds: float
    clients: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run; `error` is empty if it reached its end."""

    rounds: tuple[RoundRecord, ...]
    error: str = ""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_initial(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the head the run starts from."""
        _write_arrays(self.path / "initial.safetensors", arrays)

    def initial(self) -> dict[str, NDArray[Any]]:
        """The head the run starts from."""
        return _read_arrays(self.path / "initial.safetensors")

    def log_event(self, event: str, **facts: Any) -> None:
        """Add a line to the log of progress."""
        with (self.path / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")

    def events(self, seen: int = 0) -> list[dict[str, Any]]:
        """The lines of the log of progress after the first `seen`; a line still being written is left for later."""
        try:
            text = (self.path / "progress.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1][seen:]]

    def cancel(self) -> None:
        """Ask the ServerApp to end: nobody waits for its outcome any more."""
        (self.path / "cancelled").touch()

    def raise_if_cancelled(self) -> None:
        """Raise FederationError if nobody waits for the outcome."""
        if (self.path / "cancelled").exists():
            raise FederationError("the run was cancelled")

    def write_aggregate(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the aggregated head."""
        _write_arrays(self.path / "aggregate.safetensors", arrays)

    def aggregate(self) -> dict[str, NDArray[Any]]:
        """The aggregated head; raises FederationError if there is none."""
        return _read_arrays(self.path / "aggregate.safetensors")

    def write_outcome(self, outcome: RunOutcome) -> None:
        """Say how the run ended."""
        write_durably(self.path / "outcome.json", json.dumps(asdict(outcome), indent=2).encode())

    def outcome(self) -> RunOutcome | None:
        """How the run ended; None while it has not."""
        try:
            values = json.loads((self.path / "outcome.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return RunOutcome(tuple(RoundRecord(**values_of) for values_of in values["rounds"]), values["error"])


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    # safetensors writes the bytes of an array as they lie, so a transposed one would be read back scrambled.
    write_durably(path, save({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise FederationError(f"{path}: holds no head ({error}). Run the round again.") from None
