"""Files that `vedette federated run` and Flower's ServerApp process exchange.

One folder per run: initial head, event log (one JSON object per line), aggregated head, and the outcome, which is
written last. Arrays are safetensors, the rest is JSON: nothing executes on load.
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
    """Record of one round: metrics of the devices that answered and failures of others, by node id."""

    number: int
    seconds: float
    clients: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOutcome:
    """Outcome of a run; `error` is empty on success."""

    rounds: tuple[RoundRecord, ...]
    error: str = ""


class RunFolder:
    """Files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_initial(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the initial head."""
        _write_arrays(self.path / "initial.safetensors", arrays)

    def initial(self) -> dict[str, NDArray[Any]]:
        """Return the initial head."""
        return _read_arrays(self.path / "initial.safetensors")

    def log_event(self, event: str, **facts: Any) -> None:
        """Append an event to the log."""
        with (self.path / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")

    def events(self, seen: int = 0) -> list[dict[str, Any]]:
        """Return the events after the first `seen`; an unfinished line is left for later."""
        try:
            text = (self.path / "progress.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1][seen:]]

    def cancel(self) -> None:
        """Ask the ServerApp to end, as its outcome is no longer needed."""
        (self.path / "cancelled").touch()

    def raise_if_cancelled(self) -> None:
        """Raise FederationError if the run was cancelled."""
        if (self.path / "cancelled").exists():
            raise FederationError("the run was cancelled")

    def write_aggregate(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the aggregated head."""
        _write_arrays(self.path / "aggregate.safetensors", arrays)

    def aggregate(self) -> dict[str, NDArray[Any]]:
        """Return the aggregated head; raises FederationError if there is none."""
        return _read_arrays(self.path / "aggregate.safetensors")

    def write_outcome(self, outcome: RunOutcome) -> None:
        """Write the outcome."""
        write_durably(self.path / "outcome.json", json.dumps(asdict(outcome), indent=2).encode())

    def outcome(self) -> RunOutcome | None:
        """Return the outcome; None while the run goes on."""
        try:
            values = json.loads((self.path / "outcome.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return RunOutcome(tuple(RoundRecord(**values_of) for values_of in values["rounds"]), values["error"])


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    # safetensors ignores strides: a transposed array would be read back scrambled.
    write_durably(path, save({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise FederationError(f"{path}: does not hold a head ({error}). Run the round again.") from None
