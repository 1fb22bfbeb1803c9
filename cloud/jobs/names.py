"""Names of uploaded files: a few plain parts below one folder."""

import re
import unicodedata

from shared.errors import DataError

MAX_PARTS, MAX_PART_CHARACTERS = 6, 100
_UNUSUAL = re.compile(r"[^\w.()+ -]")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def clean_path(name: str) -> tuple[str, ...]:
    """Return the parts of an uploaded file's path with unusual characters replaced.

    Raises DataError for a path that leaves its folder, is absolute, hidden, empty or too deep.
    """
    parts = name.replace("\\", "/").split("/")
    if len(parts) > MAX_PARTS:
        raise DataError(f"{name[:80]!r}: deeper than {MAX_PARTS} folders. Upload a folder that is less nested.")
    return tuple(_clean_part(part, name) for part in parts)


def _clean_part(part: str, name: str) -> str:
    text = _UNUSUAL.sub("_", unicodedata.normalize("NFC", part)).strip()
    if not text.strip(". ") or text.startswith(".") or part != part.strip() or _RESERVED.match(text):
        raise DataError(f"{name[:80]!r}: not a path below a folder. Use plain names without leading dots or slashes.")
    if len(text.encode()) > MAX_PART_CHARACTERS:
        raise DataError(f"{name[:80]!r}: a name is longer than {MAX_PART_CHARACTERS} bytes. Shorten it.")
    return text
