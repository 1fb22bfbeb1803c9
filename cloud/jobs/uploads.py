"""Uploads: files that people send for a training, each upload in a folder of its own, bounded and kept for a while.

UPLOAD/upload.json   its maker, and the result of its inspection
UPLOAD/files/        as sent, under plain names
UPLOAD/content/      unpacked from a single ZIP archive
UPLOAD/previews/     small pictures
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cloud.jobs.messages import Inspection, InspectionStart
from cloud.jobs.names import clean_path
from cloud.training_settings import TrainingJobSettings
from shared.errors import DataError, VedetteError
from shared.files import write_durably

META, FILES, CONTENT, PREVIEWS = "upload.json", "files", "content", "previews"
PARTIAL = ".partial-"
SYNC_BYTES = 8 * 2**20  # of a file between two looks at the disk


class UploadError(DataError):
    """An upload is refused: `is_full` if it is too large or there is no room, else its name or state is wrong."""

    def __init__(self, message: str, *, is_full: bool = False) -> None:
        super().__init__(message)
        self.is_full = is_full


class UploadFacts(BaseModel):
    """Facts of an upload as stored beside its files; `sealed` once a job uses it: it does not change any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upload_id: str
    owner: str
    created_at_s: float
    inspection: Inspection | None = None
    sealed: bool = False


@dataclass(slots=True)
class _Usage:
    """Bytes and files of an upload; `writers`: files that arrive now, or an inspection."""

    size_bytes: int = 0
    files: int = 0
    writers: int = 0


class Uploads:
    """Uploads in one folder. Each belongs to its `owner`, the name of an account or token in the audit log."""

    def __init__(self, folder: Path, settings: TrainingJobSettings) -> None:
        self._folder, self._settings = folder, settings
        self._usage: dict[str, _Usage] = {}

    def path(self, upload_id: str) -> Path:
        """Return the folder of an upload."""
        return self._folder / upload_id

    async def create(self, owner: str) -> UploadFacts:
        """Make an empty upload. Raises UploadError if there are too many or no room."""
        known = await self.known()
        if len(known) >= self._settings.uploads:
            raise UploadError(f"{len(known)} uploads are kept, the largest number: delete one.", is_full=True)
        self._check_room()
        facts = UploadFacts(upload_id=secrets.token_hex(8), owner=owner, created_at_s=time.time())
        folder = self.path(facts.upload_id)
        await asyncio.to_thread(folder.joinpath(FILES).mkdir, parents=True, mode=0o700)
        await self._save(facts)
        self._usage[facts.upload_id] = _Usage()
        return facts

    async def find(self, upload_id: str, owner: str) -> UploadFacts | None:
        """Return an upload of this owner, or None."""
        facts = await asyncio.to_thread(self._read, upload_id)
        return facts if facts is not None and facts.owner == owner else None

    async def known(self) -> list[UploadFacts]:
        """Return all uploads."""

        def read() -> list[UploadFacts]:
            names = sorted(os.listdir(self._folder)) if self._folder.is_dir() else []
            return [facts for name in names if (facts := self._read(name)) is not None]

        return await asyncio.to_thread(read)

    def size(self, upload_id: str) -> tuple[int, int]:
        """Return the bytes and the number of the files of an upload. Reads its folder once."""
        usage = self._of(upload_id)
        return usage.size_bytes, usage.files

    async def receive(self, facts: UploadFacts, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Write one file as it arrives, and return its size; a file of the same name is replaced.

        Raises UploadError for a wrong name, beyond the limits, and where the disk is full; nothing is kept then.
        """
        if facts.sealed:
            raise UploadError("A job uses this upload, so it does not change any more: make another one.")
        try:
            parts = clean_path(name)
        except DataError as error:
            raise UploadError(str(error)) from None
        usage = self._of(facts.upload_id)
        if usage.files + usage.writers >= self._settings.upload_files:
            raise UploadError(f"More than {self._settings.upload_files} files (training.upload_files).", is_full=True)
        folder = self.path(facts.upload_id)
        target, partial = folder.joinpath(FILES, *parts), folder / f"{PARTIAL}{secrets.token_hex(8)}"
        usage.writers += 1
        size, is_whole = 0, False
        try:
            async with asyncio.timeout(self._settings.upload_s):
                with await asyncio.to_thread(partial.open, "xb") as output:
                    async for chunk in chunks:
                        size += len(chunk)
                        usage.size_bytes += len(chunk)
                        self._check_size(usage, looks=size % SYNC_BYTES <= len(chunk))
                        await asyncio.to_thread(output.write, chunk)
            replaced = await asyncio.to_thread(_put, partial, target)
            usage.size_bytes -= replaced or 0
            usage.files += replaced is None
            is_whole = True
        except TimeoutError:
            raise UploadError(f"The file did not arrive within {self._settings.upload_s:g} s.") from None
        except OSError as error:
            raise UploadError(f"{name[:80]}: cannot be stored ({error.strerror}).", is_full=True) from None
        finally:
            usage.writers -= 1
            if not is_whole:
                usage.size_bytes -= size
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
        if facts.inspection is not None:
            await self._save(facts.model_copy(update={"inspection": None}))
        return size

    @contextlib.asynccontextmanager
    async def inspecting(self, facts: UploadFacts, pid: int) -> AsyncIterator[InspectionStart]:
        """Yield what the inspection of an upload needs; raises UploadError while files arrive or nothing is there."""
        usage = self._of(facts.upload_id)
        if usage.writers:
            raise UploadError("Files of this upload still arrive, or it is inspected: wait for their end.")
        if not usage.files:
            raise UploadError("The upload holds no file: send one first.")
        folder, settings = self.path(facts.upload_id), self._settings
        usage.writers += 1
        try:
            for name in (CONTENT, PREVIEWS):
                await asyncio.to_thread(shutil.rmtree, folder / name, ignore_errors=True)
            self._check_size(usage, looks=True)
            yield InspectionStart(
                files=folder / FILES,
                content=folder / CONTENT,
                previews=folder / PREVIEWS,
                max_bytes=min(settings.upload_bytes, settings.all_uploads_bytes - self._all_bytes()),
                max_files=settings.upload_files,
                max_pixels=settings.upload_pixels,
                parent_pid=pid,
            )
        finally:
            usage.writers -= 1
            fresh = await asyncio.to_thread(_usage_of, folder)
            usage.size_bytes = fresh.size_bytes

    async def seal(self, facts: UploadFacts) -> None:
        """Refuse further files from now on."""
        if not facts.sealed:
            await self._save(facts.model_copy(update={"sealed": True}))

    async def save_inspection(self, facts: UploadFacts, inspection: Inspection) -> UploadFacts:
        """Store what an inspection found, and return the upload with it."""
        inspected = facts.model_copy(update={"inspection": inspection})
        await self._save(inspected)
        return inspected

    async def remove(self, upload_id: str) -> None:
        """Delete an upload with its files."""
        self._usage.pop(upload_id, None)
        await asyncio.to_thread(shutil.rmtree, self.path(upload_id), ignore_errors=True)

    async def remove_old(self, used: set[str]) -> list[str]:
        """Delete uploads without a job that are older than their time, and return their ids."""
        limit_s = time.time() - self._settings.uploads_hours * 3600
        old = [each for each in await self.known() if each.created_at_s < limit_s and each.upload_id not in used]
        removed = [each.upload_id for each in old if not self._of(each.upload_id).writers]
        for upload_id in removed:
            await self.remove(upload_id)
        return removed

    def _check_size(self, usage: _Usage, *, looks: bool) -> None:
        """Raise UploadError beyond the limits; `looks`: at the disk and at the other uploads, too."""
        limit = self._settings.upload_bytes
        if usage.size_bytes > limit:
            raise UploadError(f"The upload has more than {limit} bytes (training.upload_bytes).", is_full=True)
        if looks:
            self._check_room()

    def _check_room(self) -> None:
        settings = self._settings
        if self._all_bytes() > settings.all_uploads_bytes:
            raise UploadError(
                "All uploads together have more bytes than training.all_uploads_bytes: delete one.", is_full=True
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._folder).free < settings.free_bytes:
            raise UploadError("The disk of the service is nearly full (training.free_bytes).", is_full=True)

    def _all_bytes(self) -> int:
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        return sum(self._of(name).size_bytes for name in names)

    def _of(self, upload_id: str) -> _Usage:
        if upload_id not in self._usage:
            self._usage[upload_id] = _usage_of(self.path(upload_id))
        return self._usage[upload_id]

    def _read(self, upload_id: str) -> UploadFacts | None:
        try:
            return UploadFacts.model_validate_json((self.path(upload_id) / META).read_bytes())
        except (OSError, ValueError):
            return None

    async def _save(self, facts: UploadFacts) -> None:
        path, data = self.path(facts.upload_id) / META, json.dumps(facts.model_dump(mode="json")).encode()
        try:
            await asyncio.to_thread(write_durably, path, data)
        except (OSError, VedetteError) as error:
            raise UploadError(f"The upload cannot be stored ({error}).", is_full=True) from None


def _put(partial: Path, target: Path) -> int | None:
    """Move a whole file to its name; return the size of the file that it replaces, None for a new one.

    Raises UploadError if a folder or a file is in the way.
    """
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replaced = target.stat().st_size if target.is_file() else None
        partial.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise UploadError(f"{target.name!r}: a file and a folder have the same name. Rename one.") from None
    return replaced


def _usage_of(folder: Path) -> _Usage:
    """Return bytes of a folder, and the number of uploaded files in it; files that were cut off are deleted."""
    usage = _Usage()
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if name.startswith(PARTIAL):
                path.unlink(missing_ok=True)
                continue
            usage.size_bytes += path.stat().st_size
            usage.files += path.is_relative_to(folder / FILES)
    return usage
