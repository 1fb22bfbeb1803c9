"""A process that answers how fast something runs: a JSON line in, a JSON line out, idle in between."""

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from shared.errors import VedetteError

TIMEOUT_S = 600.0


@contextmanager
def rate_worker(what: str, command: Sequence[str | Path], settings: dict[str, Any]) -> Iterator["RateWorker"]:
    """Such a process, handed its `settings`, until the block ends. Libraries may print what they like to its standard
    error. Raises VedetteError that says why `what` cannot be measured."""
    with TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        except OSError as error:
            raise VedetteError(f"{what} cannot be started: {command[0]} ({error.strerror}).") from None
        with process:
            try:
                worker = RateWorker(what, process, said)
                worker.ask(settings)
                yield worker
            finally:
                process.kill()


class RateWorker:
    """One that runs."""

    def __init__(self, what: str, process: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
        self._what, self._process, self._said = what, process, said

    def rate(self, batch_size: int, seconds: float) -> float:
        """Samples a second at that batch size, measured for so long."""
        return float(self.ask({"batch_size": batch_size, "seconds": seconds})["samples_per_s"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a line of JSON. Raises VedetteError where there is none in time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        answer = b""
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            end_s = time.monotonic() + TIMEOUT_S
            while not answer.endswith(b"\n") and select.select([stdout], [], [], end_s - time.monotonic())[0]:
                part = os.read(stdout.fileno(), 2**16)
                if not part:
                    break
                answer += part
            values: dict[str, Any] = json.loads(answer)
        except (OSError, ValueError):
            raise VedetteError(f"{self._what} failed: {self._last_words()}") from None
        return values

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else f"no answer within {TIMEOUT_S:.0f} s"
