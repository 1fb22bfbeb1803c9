"""Inspection of an upload in a child process."""

import asyncio
import os
import tempfile
from pathlib import Path

from cloud.jobs.child import end_child, start_child
from cloud.jobs.messages import MAX_INSPECTION_BYTES, Inspection
from cloud.jobs.uploads import UploadError, UploadFacts, Uploads

INSPECT_S = 900.0
LOOK_S = 0.05  # between two looks at the process


class Inspector:
    """Runs one inspection at a time; others wait."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._turn = asyncio.Lock()

    async def inspect(self, facts: UploadFacts) -> UploadFacts:
        """Inspect an upload and store what it holds. Raises UploadError if it is not ready for it, or deleted."""
        async with self._turn, self._uploads.inspecting(facts, os.getpid()) as start:
            try:
                with tempfile.TemporaryDirectory(dir=self._uploads.path(facts.upload_id)) as name:
                    folder = Path(name)
                    (folder / "start.json").write_text(start.model_dump_json())
                    found = await self._run(folder, facts.upload_id)
            except OSError as error:
                raise UploadError(f"The upload cannot be inspected ({error.strerror}).", is_full=True) from None
            return await self._uploads.save_inspection(facts, found)

    async def _run(self, folder: Path, upload_id: str) -> Inspection:
        result, output_path = folder / "result.json", folder / "output.txt"
        with output_path.open("ab") as output:
            arguments = [str(folder / "start.json"), str(result)]
            process = start_child("inspect_upload", arguments, output=output)
            try:
                async with asyncio.timeout(INSPECT_S):
                    while process.poll() is None and not self._uploads.is_removed(upload_id):
                        await asyncio.sleep(LOOK_S)
            except TimeoutError:
                return Inspection(problem=f"To look at the upload took longer than {INSPECT_S:g} s: upload less.")
            finally:
                await end_child(process)
        return await asyncio.to_thread(read_answer, result)


def read_answer(path: Path) -> Inspection:
    """Return the result that an inspection wrote, at most MAX_INSPECTION_BYTES; else one with the problem. Blocking."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INSPECTION_BYTES + 1)
        if len(data) <= MAX_INSPECTION_BYTES:
            return Inspection.model_validate_json(data)
    except (OSError, ValueError):
        pass
    return Inspection(
        problem="The upload cannot be read: the process that looked at it ended, or gave no valid answer. It may be "
        "damaged, or need more memory or time than an inspection has."
    )
