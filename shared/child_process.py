"""Child processes that answer in JSON lines: one request a line in, one answer a line out."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from shared.errors import NoAnswerError

_READ_BYTES = 2**16
_EXIT_WAIT_S = 5.0


class JsonLinesProcess:
    """One child process. Close it, or use it as a context: it is killed then.

    Its standard error goes to `stderr`. Raises OSError if the command cannot be started.
    """

    def __init__(
        self, command: Sequence[str | Path], *, stderr: IO[bytes], environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=None if environment is None else dict(environment),
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """Send a request and return the answer; raises NoAnswerError if there is none within `timeout_s` seconds."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            answer = json.loads(self._read_line(timeout_s))
        except TimeoutError:
            raise self._no_answer(0.0) from None
        except (OSError, ValueError):
            raise self._no_answer(_EXIT_WAIT_S) from None
        if not isinstance(answer, dict):
            raise self._no_answer(0.0)
        return answer

    def close(self) -> None:
        """Kill the child if it runs, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # a request that the child never read
                    pipe.close()

    def _read_line(self, timeout_s: float | None) -> bytes:
        """Return the next line; raises TimeoutError, or ValueError at the end of the output."""
        stdout = self._process.stdout
        assert stdout is not None
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            if not select.select([stdout], [], [], left_s)[0]:
                raise TimeoutError
            data = os.read(stdout.fileno(), _READ_BYTES)
            if not data:
                raise ValueError("the output has ended")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _no_answer(self, timeout_s: float) -> NoAnswerError:
        """Return the error of a child that has ended, or may end within `timeout_s` seconds."""
        code = self._exit_code(timeout_s)
        return NoAnswerError("no answer in time" if code is None else f"ended with exit code {code}", code)

    def _exit_code(self, timeout_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None


def serve_json_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests from standard input until it ends; what libraries print goes to standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        output.write(json.dumps(answer(json.loads(line))) + "\n")
        output.flush()
