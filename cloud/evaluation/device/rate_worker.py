"""Client of a worker process that measures throughput.

Requests and answers are JSON lines. The first request has the settings of the worker; its answer is an empty object.
Each further request has `batch_size` and `seconds`, and its answer has `samples_per_s`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from shared.child_process import JsonLinesProcess, NoAnswerError
from shared.errors import VedetteError

TIMEOUT_S = 600.0


@contextmanager
def rate_worker(name: str, command: Sequence[str | Path], settings: dict[str, Any]) -> Iterator["RateWorker"]:
    """Run a worker process until the block ends and send it `settings` as the first request.

    `name`: subject of error messages. The standard error of the process is captured, so its libraries may print there.
    Raises VedetteError with the reason if the process cannot be started or fails.
    """
    with TemporaryFile() as log:
        try:
            process = JsonLinesProcess(command, stderr=log)
        except OSError as error:
            raise VedetteError(f"{name} cannot be started: {command[0]} ({error.strerror}).") from None
        with process:
            worker = RateWorker(name, process, log)
            worker.ask(settings)
            yield worker


class RateWorker:
    """Running worker process."""

    def __init__(self, name: str, process: JsonLinesProcess, log: IO[bytes]) -> None:
        self._name, self._process, self._log = name, process, log

    def rate(self, batch_size: int, seconds: float) -> float:
        """Return the samples per second at a batch size, measured for `seconds`."""
        return float(self.ask({"batch_size": batch_size, "seconds": seconds})["samples_per_s"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer; raise VedetteError if none arrives in time."""
        try:
            return self._process.ask(question, TIMEOUT_S)
        except NoAnswerError:
            raise VedetteError(f"{self._name} failed: {self._last_error()}") from None

    def _last_error(self) -> str:
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else f"no answer within {TIMEOUT_S:.0f} s"
