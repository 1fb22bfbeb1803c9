"""A process that answers how fast something runs: a JSON line in, a JSON line out, idle in between."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from shared.child_process import JsonLinesProcess, NoAnswerError
from shared.errors import VedetteError

TIMEOUT_S = 600.0


@contextmanager
def rate_worker(what: str, command: Sequence[str | Path], settings: dict[str, Any]) -> Iterator["RateWorker"]:
    """Such a process, handed its `settings`, until the block ends. Libraries may print what they like to its standard
    error. Raises VedetteError that says why `what` cannot be measured."""
    with TemporaryFile() as log:
        try:
            process = JsonLinesProcess(command, stderr=log)
        except OSError as error:
            raise VedetteError(f"{what} cannot be started: {command[0]} ({error.strerror}).") from None
        with process:
            worker = RateWorker(what, process, log)
            worker.ask(settings)
            yield worker


class RateWorker:
    """One that runs."""

    def __init__(self, what: str, process: JsonLinesProcess, log: IO[bytes]) -> None:
        self._what, self._process, self._log = what, process, log

    def rate(self, batch_size: int, seconds: float) -> float:
        """Samples a second at that batch size, measured for so long."""
        return float(self.ask({"batch_size": batch_size, "seconds": seconds})["samples_per_s"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a line of JSON. Raises VedetteError where there is none in time."""
        try:
            return self._process.ask(question, TIMEOUT_S)
        except NoAnswerError:
            raise VedetteError(f"{self._what} failed: {self._last_words()}") from None

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else f"no answer within {TIMEOUT_S:.0f} s"
