"""One running training process: its messages become the progress and the log of its job."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.jobs.child import end_child, resident_bytes, start_child
from cloud.jobs.messages import MAX_LINE_BYTES, Finished, Logged, Progressed, Refused, TrainingStart, parsed
from cloud.store.training_jobs import MAX_LOG_LINES, JobProgress
from shared.files import write_durably

OUTPUT_FILE, START_FILE = "output.txt", "start.json"
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class JobEnd:
    """End of a training process: a result, a reason that another attempt does not change, or a crash."""

    result: dict[str, Any] | None = None
    refusal: str = ""
    crash: str = ""


class RunningJob:
    """A training process and its reports so far. Use `run` once; `kill` ends it at any time."""

    def __init__(self, start: TrainingStart, earlier: tuple[tuple[float, str], ...] = ()) -> None:
        self._start = start
        self._log = deque(earlier, maxlen=MAX_LOG_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._stage, self._share = "starting", 0.0
        self._remaining_s: float | None = None

    @property
    def progress(self) -> JobProgress:
        """Progress and log so far."""
        return JobProgress(self._stage, self._share, self._remaining_s, tuple(self._log))

    @property
    def memory_bytes(self) -> int:
        """Memory of the process now; 0 before it starts and after its end."""
        return resident_bytes(self._process.pid) if self._process is not None else 0

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self._log.append((time.time(), text))

    async def kill(self) -> None:
        """Kill the process at once, and wait for its end."""
        if self._process is not None:
            await end_child(self._process)

    async def run(self) -> JobEnd:
        """Run the process to its end. Raises OSError if it cannot be started; a cancellation ends it."""
        folder = self._start.folder
        await asyncio.to_thread(folder.mkdir, parents=True, mode=0o700)
        await asyncio.to_thread(write_durably, folder / START_FILE, self._start.model_dump_json().encode(), 0o600)
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", 0) as pipe, (folder / OUTPUT_FILE).open("ab") as output:
            try:
                arguments = [str(folder / START_FILE), str(writing)]
                self._process = start_child(
                    "train",
                    arguments,
                    output=output,
                    pass_fds=(writing,),
                    cores=self._start.cores,
                    opens_store=self._start.location is not None,
                )
            finally:
                os.close(writing)
            try:
                end = await self._follow(pipe)
                code = await asyncio.to_thread(self._process.wait)
            finally:
                await self.kill()
        return end or JobEnd(crash=_crash_of(code, folder / OUTPUT_FILE))

    async def _follow(self, pipe: Any) -> JobEnd | None:
        """Take messages to the end of the stream; return the end that the process reported, None without one."""
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        end: JobEnd | None = None
        try:
            while line := await reader.readline():
                match parsed(line):
                    case Progressed() as report:
                        self._stage, self._share, self._remaining_s = report.stage, report.share, report.remaining_s
                    case Logged(text=text):
                        self.say(text)
                    case Finished(result=result):
                        end = JobEnd(result=result)
                    case Refused(reason=reason):
                        end = JobEnd(refusal=reason)
        except ValueError as error:  # also a line that is too long
            return JobEnd(crash=f"sent a message that cannot be read ({str(error)[:100]})")
        finally:
            transport.close()
        return end


def _crash_of(code: int, output: Path) -> str:
    """Return how a process ended that reported no result, with the last line that it printed."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    with contextlib.suppress(OSError), output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"{how}: {lines[-1][:300]}"
    return how
