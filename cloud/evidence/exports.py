"""Exports of verdicts, one at a time: drawing pictures and embedding fonts takes a core for about a second."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from cloud.evidence.archive import export_zip
from cloud.evidence.reading import Evidence
from shared.errors import VedetteError

MAX_WAITING = 8


class ExportForm(StrEnum):
    """File format of an export."""

    PDF = "pdf"
    ZIP = "zip"


MEDIA_TYPES = {ExportForm.PDF: "application/pdf", ExportForm.ZIP: "application/zip"}


class ExportsBusyError(VedetteError):
    """Too many exports wait: ask again in a few seconds."""


class Exporter:
    """Maker of exports in a thread; at most MAX_WAITING wait."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def export(self, evidence: Evidence, form: ExportForm) -> bytes:
        """Return the file; raises ExportsBusyError if too many wait."""
        if self._waiting >= MAX_WAITING:
            raise ExportsBusyError("Too many exports wait: try again in a few seconds.")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(_maker(form), evidence)
        finally:
            self._waiting -= 1


def _maker(form: ExportForm) -> Callable[[Evidence], bytes]:
    if form is ExportForm.ZIP:
        return export_zip
    from cloud.evidence.report import report_pdf  # the library takes a while to import

    return report_pdf
