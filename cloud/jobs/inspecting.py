"""Inspection of an upload in a child process."""

import asyncio
import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from cloud.jobs.child import kill_child, start_child
from cloud.jobs.messages import Inspection
from cloud.jobs.uploads import UploadFacts, Uploads

INSPECT_S = 900.0
_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


class Inspector:
    """Runs one inspection at a time; others wait."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._turn = asyncio.Lock()

    async def inspect(self, facts: UploadFacts) -> UploadFacts:
        """Inspect an upload and store what it holds. Raises UploadError if it is not ready for it."""
        async with self._turn, self._uploads.inspecting(facts, os.getpid()) as start:
            with tempfile.TemporaryDirectory(dir=self._uploads.path(facts.upload_id)) as name:
                folder = Path(name)
                (folder / "start.json").write_text(start.model_dump_json())
                found = await self._run(folder)
        return await self._uploads.save_inspection(facts, found)

    async def _run(self, folder: Path) -> Inspection:
        result, output_path = folder / "result.json", folder / "output.txt"
        with output_path.open("ab") as output:
            arguments = [str(folder / "start.json"), str(result)]
            environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
            process = start_child("inspect_upload", arguments, output=output, environment=environment)
            try:
                async with asyncio.timeout(INSPECT_S):
                    await _ended(process)
            except TimeoutError:
                return Inspection(problem=f"To look at the upload took longer than {INSPECT_S:g} s: upload less.")
            finally:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(kill_child, process)
        try:
            return Inspection.model_validate_json(result.read_bytes())
        except (OSError, ValueError):
            return Inspection(
                problem="The upload cannot be read: the process that looked at it ended. It may be damaged, or need "
                "more memory or time than an inspection has."
            )


async def _ended(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        await asyncio.sleep(0.05)
