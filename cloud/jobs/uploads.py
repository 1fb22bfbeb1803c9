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
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cloud.jobs.folders import newest_change_s
from cloud.jobs.messages import Inspection, InspectionStart
from cloud.jobs.names import clean_path
from cloud.jobs.options import ID_PATTERN
from cloud.training_settings import TrainingJobSettings
from shared.errors import DataError, VedetteError
from shared.files import write_durably

META, FILES, CONTENT, PREVIEWS = "upload.json", "files", "content", "previews"
PARTIAL = ".partial-"
SYNC_BYTES = 8 * 2**20  # of a file between two looks at the disk
RECOUNT_S = 600.0  # until the files of an idle upload are counted again: another process may have changed them
DEAD_S = 60.0  # beyond training.upload_s without a change, until a partial file has no writer for certain
_SEALED = "A job uses this upload, so it does not change any more: make another one."
_BUSY = "Files of this upload still arrive, or it is inspected: wait for their end."


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
    """Bytes and files of an upload, and its use by this process; `writers`: files that arrive now.

    `lock` is held while its facts or whole files change; `counted_s`: monotonic time since which the numbers hold.
    """

    size_bytes: int = 0
    files: int = 0
    writers: int = 0
    is_inspected: bool = False
    is_removed: bool = False
    counted_s: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_busy(self) -> bool:
        return bool(self.writers) or self.is_inspected or self.lock.locked()


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
        facts = UploadFacts(upload_id=secrets.token_hex(8), owner=owner, created_at_s=time.time())
        try:
            await self._check_room()
            await asyncio.to_thread(self.path(facts.upload_id).joinpath(FILES).mkdir, parents=True, mode=0o700)
        except OSError as error:
            raise UploadError(f"The upload cannot be stored ({error.strerror}).", is_full=True) from None
        await self._save(facts)
        return facts

    async def find(self, upload_id: str, owner: str) -> UploadFacts | None:
        """Return an upload of this owner, or None."""
        facts = await asyncio.to_thread(self._read, upload_id)
        return facts if facts is not None and facts.owner == owner else None

    async def known(self) -> list[UploadFacts]:
        """Return all uploads."""

        def read() -> list[UploadFacts]:
            return [facts for name in self._names() if (facts := self._read(name)) is not None]

        return await asyncio.to_thread(read)

    async def size(self, upload_id: str) -> tuple[int, int]:
        """Return the bytes and the number of the files of an upload."""
        usage = await self._of(upload_id)
        return usage.size_bytes, usage.files

    def is_removed(self, upload_id: str) -> bool:
        """Return whether an upload is being deleted, so that work on it can end."""
        usage = self._usage.get(upload_id)
        return usage is None or usage.is_removed

    async def receive(self, facts: UploadFacts, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Write one file as it arrives, and return its size; a file of the same name is replaced.

        Raises UploadError for a wrong name, beyond the limits, during an inspection, once a job uses the upload, and
        where the disk is full; nothing is kept then, and neither if `chunks` raises.
        """
        try:
            parts = clean_path(name)
        except DataError as error:
            raise UploadError(str(error)) from None
        if facts.sealed:
            raise UploadError(_SEALED)
        upload_id, limit = facts.upload_id, self._settings.upload_files
        usage = await self._of(upload_id)
        if usage.is_inspected:
            raise UploadError("The upload is inspected: wait for the end.")
        if usage.files + usage.writers >= limit:
            raise UploadError(f"More than {limit} files (training.upload_files).", is_full=True)
        folder = self.path(upload_id)
        partial = folder / f"{PARTIAL}{secrets.token_hex(8)}"
        try:
            async with _writer(usage, partial):
                await self._changeable(upload_id)
                return await self._arrive(usage, chunks, partial, folder.joinpath(FILES, *parts))
        except TimeoutError:
            raise UploadError(f"The file did not arrive within {self._settings.upload_s:g} s.") from None
        except OSError as error:
            raise UploadError(f"{name[:80]}: cannot be stored ({error.strerror}).", is_full=True) from None

    async def _arrive(self, usage: _Usage, chunks: AsyncIterator[bytes], partial: Path, target: Path) -> int:
        """Write a file to `partial`, and move it to `target` when it is whole; return its size."""
        size = 0
        try:
            async with asyncio.timeout(self._settings.upload_s):
                with await asyncio.to_thread(partial.open, "xb") as output:
                    async for chunk in chunks:
                        size += len(chunk)
                        usage.size_bytes += len(chunk)
                        await self._check_size(usage, looks=size % SYNC_BYTES <= len(chunk))
                        await asyncio.to_thread(output.write, chunk)
            async with usage.lock:
                facts = await self._changeable(partial.parent.name)
                if facts.inspection is not None:  # of other files
                    await self._save(facts.model_copy(update={"inspection": None}))
                replaced = await asyncio.to_thread(_put, partial, target)
                usage.size_bytes -= replaced or 0
                usage.files += replaced is None
        except BaseException:
            usage.size_bytes -= size
            raise
        return size

    @contextlib.asynccontextmanager
    async def inspecting(self, facts: UploadFacts, pid: int) -> AsyncIterator[InspectionStart]:
        """Yield what the inspection of an upload needs, which changes meanwhile by this block alone.

        Raises UploadError while files arrive or another inspection runs, once a job uses it, and if nothing is there.
        """
        usage = await self._of(facts.upload_id)
        if usage.is_busy:
            raise UploadError(_BUSY)
        if not usage.files:
            raise UploadError("The upload holds no file: send one first.")
        usage.is_inspected = True
        folder, settings = self.path(facts.upload_id), self._settings
        try:
            await self._changeable(facts.upload_id)
            for name in (CONTENT, PREVIEWS):
                await asyncio.to_thread(shutil.rmtree, folder / name, ignore_errors=True)
            await self._count_again(facts.upload_id, usage)
            await self._check_size(usage, looks=True)
            yield InspectionStart(
                files=folder / FILES,
                content=folder / CONTENT,
                previews=folder / PREVIEWS,
                max_bytes=min(settings.upload_bytes, settings.all_uploads_bytes - await self._all_bytes()),
                max_files=settings.upload_files,
                free_bytes=settings.free_bytes,
                max_pixels=settings.upload_pixels,
                parent_pid=pid,
            )
        finally:
            try:
                await self._count_again(facts.upload_id, usage)
            finally:
                usage.is_inspected = False

    async def seal(self, facts: UploadFacts) -> None:
        """Refuse changes from now on. Raises UploadError while files arrive or if the upload is not as in `facts`."""
        usage = await self._of(facts.upload_id)
        async with usage.lock:
            if usage.writers or usage.is_inspected:
                raise UploadError(_BUSY)
            stored = await asyncio.to_thread(self._read, facts.upload_id)
            if stored is None or stored.inspection != facts.inspection:
                raise UploadError("The upload has changed: ask for its inspection again.")
            if not stored.sealed:
                await self._save(stored.model_copy(update={"sealed": True}))

    async def save_inspection(self, facts: UploadFacts, inspection: Inspection) -> UploadFacts:
        """Store what an inspection found, and return the upload with it. Raises UploadError."""
        usage = await self._of(facts.upload_id)
        async with usage.lock:
            stored = await self._changeable(facts.upload_id)
            inspected = stored.model_copy(update={"inspection": inspection})
            await self._save(inspected)
        return inspected

    async def remove(self, upload_id: str) -> None:
        """Delete an upload with its files; files that still arrive are refused, and an inspection ends."""
        usage = self._usage.setdefault(upload_id, _Usage())
        usage.is_removed = True
        async with usage.lock:
            await asyncio.to_thread(shutil.rmtree, self.path(upload_id), ignore_errors=True)
        self._usage.pop(upload_id, None)

    async def remove_old(self, used: set[str]) -> list[str]:
        """Delete uploads without a job in which nothing has changed for their time, and return their ids."""
        limit_s = time.time() - self._settings.uploads_hours * 3600
        removed = []
        for upload_id in await asyncio.to_thread(self._names):
            usage = self._usage.get(upload_id)
            if upload_id in used or (usage is not None and usage.is_busy):
                continue
            if await asyncio.to_thread(newest_change_s, self.path(upload_id)) < limit_s:
                await self.remove(upload_id)
                removed.append(upload_id)
        return removed

    async def _check_size(self, usage: _Usage, *, looks: bool) -> None:
        """Raise UploadError beyond the limits; `looks`: at the disk and at the other uploads, too."""
        limit = self._settings.upload_bytes
        if usage.is_removed:
            raise UploadError("The upload was deleted: make another one.")
        if usage.size_bytes > limit:
            raise UploadError(f"The upload has more than {limit} bytes (training.upload_bytes).", is_full=True)
        if looks:
            await self._check_room()

    async def _check_room(self) -> None:
        settings = self._settings
        if await self._all_bytes() > settings.all_uploads_bytes:
            raise UploadError(
                "All uploads together have more bytes than training.all_uploads_bytes: delete one.", is_full=True
            )
        if await asyncio.to_thread(_free_bytes, self._folder) < settings.free_bytes:
            raise UploadError("The disk of the service is nearly full (training.free_bytes).", is_full=True)

    async def _all_bytes(self) -> int:
        """Return the bytes of all uploads, and forget those that are gone."""
        names = await asyncio.to_thread(self._names)
        for gone in self._usage.keys() - set(names):
            if not self._usage[gone].is_busy:
                del self._usage[gone]
        return sum([(await self._of(name)).size_bytes for name in names])

    async def _of(self, upload_id: str) -> _Usage:
        """Return the usage of an upload; its files are counted the first time, and again each RECOUNT_S."""
        usage = self._usage.get(upload_id)
        if usage is None:
            size_bytes, files = await asyncio.to_thread(self._count, upload_id)
            return self._usage.setdefault(upload_id, _Usage(size_bytes, files))
        if not usage.is_busy and time.monotonic() - usage.counted_s > RECOUNT_S:
            await self._count_again(upload_id, usage)
        return usage

    async def _count_again(self, upload_id: str, usage: _Usage) -> None:
        """Count the files of an upload, unless one has arrived meanwhile."""
        before_s = usage.counted_s
        counted = await asyncio.to_thread(self._count, upload_id)
        if not usage.writers and usage.counted_s == before_s:
            usage.size_bytes, usage.files = counted
            usage.counted_s = time.monotonic()

    def _count(self, upload_id: str) -> tuple[int, int]:
        """Return the bytes of an upload, unpacked files and previews included, and the number of uploaded files.

        Deletes partial files without a writer.
        """
        folder = self.path(upload_id)
        dead_s = time.time() - self._settings.upload_s - DEAD_S
        size_bytes = files = 0
        for place, _, names in os.walk(folder):
            for path in (Path(place, name) for name in names):
                with contextlib.suppress(OSError):  # it may be gone by now
                    facts = path.lstat()
                    if path.name.startswith(PARTIAL) and facts.st_mtime < dead_s:
                        path.unlink()
                        continue
                    size_bytes += facts.st_size if path != folder / META else 0
                    files += path.is_relative_to(folder / FILES)
        return size_bytes, files

    def _names(self) -> list[str]:
        """Return the names of all folders of uploads."""
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        return sorted(name for name in names if re.fullmatch(ID_PATTERN, name))

    async def _changeable(self, upload_id: str) -> UploadFacts:
        """Return the present facts of an upload. Raises UploadError if it was deleted, or if a job uses it."""
        facts = await asyncio.to_thread(self._read, upload_id)
        if facts is None:
            raise UploadError("The upload was deleted: make another one.")
        if facts.sealed:
            raise UploadError(_SEALED)
        return facts

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


@contextlib.asynccontextmanager
async def _writer(usage: _Usage, partial: Path) -> AsyncIterator[None]:
    """Count a writer during a block, and delete what is left of its file at the end."""
    usage.writers += 1
    try:
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(partial.unlink, missing_ok=True)
        finally:
            usage.writers -= 1
            usage.counted_s = time.monotonic()


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return shutil.disk_usage(folder).free


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
