"""Encoding, delimiter and quoting of a text table.

A record is one line. Lines end with LF or CR LF. A cell may be quoted with `"`; it must close on the same line.
"""

import csv
import re
from dataclasses import dataclass

from shared.tables.settings import TableSettings

HEAD_BYTES = 4096  # read to detect the encoding
_DELIMITERS = "\t;,"  # the first wins a tie
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "": "none (one column)"}
_QUOTED = re.compile(r'"[^"]*"')
_MIN_UTF16_BYTES = 8


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """Encoding of a text file. `bom_bytes`: length of the byte order mark at its start."""

    name: str
    bom_bytes: int = 0

    @property
    def newline(self) -> bytes:
        """Bytes of a line feed."""
        return "\n".encode(self.name)

    def find_newline(self, data: bytes, start: int = 0) -> int:
        """Return the position of the next line feed, or -1. `data` begins at the start of a character."""
        width = len(self.newline)
        position = data.find(self.newline, start)
        while position >= 0 and position % width:
            position = data.find(self.newline, position + 1)
        return position

    def decode(self, line: bytes) -> str:
        """Return a line as text, without its line end. Bytes that are not UTF-8 are read as Windows-1252."""
        if self.name == "utf-8":
            try:
                return line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                return line.decode("cp1252", "replace").rstrip("\r\n")
        return line.decode(self.name, "replace").rstrip("\r\n")

    def split_lines(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return whole lines without their line feeds, and the rest after the last one."""
        if len(self.newline) == 1:
            *lines, rest = data.split(b"\n")
            return lines, rest
        lines, start = [], 0
        while (end := self.find_newline(data, start)) >= 0:
            lines.append(data[start:end])
            start = end + len(self.newline)
        return lines, data[start:]


def detect_encoding(head: bytes, wanted: str = "auto") -> TextEncoding:
    """Return the encoding of a file that begins with `head`."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark) and wanted in ("auto", name, name[:6]):
            return TextEncoding(name, len(mark))
    if wanted == "utf-16":
        return TextEncoding("utf-16-le")
    if wanted != "auto":
        return TextEncoding(wanted)
    even, odd = head[:256:2], head[1:256:2]
    if len(head) >= _MIN_UTF16_BYTES:  # Latin text in UTF-16 without a mark: every second byte is zero
        if 0 not in even and odd.count(0) > len(odd) / 2:
            return TextEncoding("utf-16-le")
        if 0 not in odd and even.count(0) > len(even) / 2:
            return TextEncoding("utf-16-be")
    return TextEncoding("utf-8")


def detect_delimiter(header: str, settings: TableSettings | None = None) -> str:
    """Return the most frequent delimiter of a header line outside quotes; "" if the table has one column."""
    if settings is not None and settings.delimiter != "auto":
        return "\t" if settings.delimiter == "tab" else settings.delimiter
    plain = _QUOTED.sub("", header)
    best = max(_DELIMITERS, key=plain.count)
    return best if best in plain else ""


def split_cells(line: str, delimiter: str) -> list[str]:
    """Return the trimmed cells of one line. Raises ValueError for a quote that does not close."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)] if delimiter else [line.strip()]
    if line.count('"') % 2:
        raise ValueError("a quote is not closed on its line.")
    try:
        cells = next(csv.reader([line], delimiter=delimiter or "\x1f", skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f"{error}.") from None
    return [cell.strip() for cell in cells]


def describe(encoding: str, delimiter: str, decimal: str) -> str:
    """Return the format in one line, or "" for the usual one: UTF-8, comma, decimal point."""
    if encoding == "utf-8" and delimiter in (",", "") and decimal != ",":
        return ""
    mark = "comma" if decimal == "," else "point"
    return f"read as {encoding.upper()}, delimiter {_NAMES[delimiter]}, decimal {mark}"
