"""Unpacking of uploaded ZIP archives: bounded in files and bytes, with plain names, without links."""

import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from cloud.jobs.names import clean_path
from shared.errors import DataError

MAX_ENTRY_BYTES = 600  # of the central directory for one file, with a long name and its extra fields
CHUNK_BYTES = 2**20
_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _MAX_COMMENT = 22, 20, 2**16
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SKIPPED = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


def unpack(archive: Path, folder: Path, *, max_files: int, max_bytes: int, free_bytes: int = 0) -> int:
    """Unpack an archive into a new folder and return the number of files.

    Raises DataError for an archive that is damaged or encrypted, has too many files or bytes, or holds a link or a path
    outside its folder. Nothing is read beyond the limits. At least `free_bytes` of the disk stay free.
    """
    _check_directory(archive, max_files)
    count = total = 0
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir() and not _is_skipped(entry.filename)]
            if len(entries) > max_files:
                raise DataError(_too_many(archive, max_files))
            for entry in entries:
                _check_entry(archive, entry)
                target = folder.joinpath(*clean_path(entry.filename))
                target.parent.mkdir(parents=True, exist_ok=True)
                total = _write(opened, entry, target, total, max_bytes, free_bytes)
                count += 1
    # zipfile raises NotImplementedError for a version or a method that it does not know, RuntimeError for a password.
    except (zipfile.BadZipFile, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{archive.name}: not a readable ZIP archive ({error}). Make it again.") from None
    if not count:
        raise DataError(f"{archive.name}: the archive holds no file.")
    return count


def _write(
    opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, total: int, max_bytes: int, free_bytes: int
) -> int:
    """Write one file and return the bytes unpacked so far; counts what really comes out, not what is announced."""
    try:
        with opened.open(entry) as source, target.open("xb") as output:
            while chunk := source.read(CHUNK_BYTES):
                total += len(chunk)
                if total > max_bytes:
                    raise DataError(
                        f"{opened.filename and Path(opened.filename).name}: unpacks to more than {max_bytes} bytes "
                        "(training.upload_bytes). Upload less."
                    )
                if shutil.disk_usage(target.parent).free - len(chunk) < free_bytes:
                    raise DataError("The disk of the service is nearly full (training.free_bytes).")
                output.write(chunk)
    except FileExistsError:
        raise DataError(f"{entry.filename[:80]!r}: two files of the archive have this name. Rename one.") from None
    except zlib.error as error:
        raise DataError(f"{entry.filename[:80]!r}: damaged in the archive ({error}).") from None
    return total


def _check_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DataError(f"{archive.name}: {entry.filename[:80]!r} is a link or a device. Pack plain files only.")
    if entry.flag_bits & 1:
        raise DataError(f"{archive.name}: {entry.filename[:80]!r} is encrypted. Pack the files without a password.")
    if entry.compress_type not in _METHODS:
        raise DataError(f"{archive.name}: {entry.filename[:80]!r} is packed by an unusual method. Use deflate.")


def _check_directory(archive: Path, max_files: int) -> None:
    """Raise DataError for an archive whose list of files is too long to be read, before it is read."""
    size = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT))
        tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_BYTES:
        raise DataError(f"{archive.name}: not a readable ZIP archive. Make it again.")
    count, listed_bytes = struct.unpack("<HI", tail[place + 10 : place + 16])
    if tail[max(0, place - _LOCATOR_BYTES) : place].startswith(_LOCATOR) or count == 0xFFFF:
        raise DataError(_too_many(archive, max_files))
    if count > max_files or listed_bytes > max_files * MAX_ENTRY_BYTES:
        raise DataError(_too_many(archive, max_files))


def _is_skipped(name: str) -> bool:
    return any(part in _SKIPPED or part.startswith("._") for part in name.split("/"))


def _too_many(archive: Path, max_files: int) -> str:
    return f"{archive.name}: holds more than {max_files} files (training.upload_files). Upload fewer."
