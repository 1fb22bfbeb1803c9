"""A process that answers how fast something runs: a JSON line in, a JSON line out, idle in between."""

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

from shared.errors import VedetteError

TIMEOUT_S = 600.0


class RateWorker:
    """One such process, for a `with` statement. Libraries may print what they like to its standard error."""

    def __init__(self, what: str, command: Sequence[str | Path], settings: dict[str, Any]) -> None:
        """Start it, and hand it its `settings`. Raises VedetteError that says why `what` cannot be measured."""
        self._what = what
        self._said = TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            raise VedetteError(f"{what} cannot be started: {command[0]} ({error.strerror}).") from None
        try:
            self._ask(settings)
        except VedetteError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rate(self, batch_size: int, seconds: float) -> float:
        """Samples a second at that batch size, measured for so long."""
        return float(self._ask({"batch_size": batch_size, "seconds": seconds})["samples_per_s"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._said):
            if file is not None:
                file.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
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
