"""Routes of the evidence behind a verdict, and of its exports."""

import asyncio
import uuid
from typing import Any

from fastapi import APIRouter, Response

from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.document import document_of
from cloud.evidence.exports import MEDIA_TYPES, Exporter, ExportForm, ExportsBusyError
from cloud.evidence.reading import Evidence, read_evidence
from cloud.rest.access import needs
from cloud.rest.problems import Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope

BUSY_RETRY_S = 5


def evidence_routes(store: Store, shelf: BundleShelf) -> APIRouter:
    """Return the routes."""
    router = api_router("verdicts")
    exporter = Exporter()

    @router.get("/verdicts/{sample_id}/evidence", **needs(Scope.VERDICTS_READ, 404, 409))
    async def evidence_of(sample_id: uuid.UUID) -> dict[str, Any]:
        """Return everything that explains one verdict: facts in words, values, normal ranges, expected values, history.

        404 for an unknown sample, 409 for one that waits for its verdict.
        """
        evidence = await _evidence(store, shelf, sample_id)
        return await asyncio.to_thread(document_of, evidence)

    @router.get("/verdicts/{sample_id}/export.{form}", response_class=Response, **needs(Scope.VERDICTS_READ, 404, 409))
    async def export(sample_id: uuid.UUID, form: ExportForm) -> Response:
        """Return one verdict as a PDF report, or as a ZIP archive with its values, pictures and evidence as JSON."""
        evidence = await _evidence(store, shelf, sample_id)
        try:
            data = await exporter.export(evidence, form)
        except ExportsBusyError:
            headers = {"Retry-After": str(BUSY_RETRY_S)}
            raise Problem(503, "busy", "Too many exports wait: try again in a few seconds.", headers=headers) from None
        headers = {"Content-Disposition": f'attachment; filename="verdict-{sample_id}.{form}"'}
        return Response(data, media_type=MEDIA_TYPES[form], headers=headers)

    return router


async def _evidence(store: Store, shelf: BundleShelf, sample_id: uuid.UUID) -> Evidence:
    found = await read_evidence(store, shelf, sample_id)
    if isinstance(found, Evidence):
        return found
    if found:
        raise Problem(409, "not-judged", f"Sample {sample_id} waits for its verdict: ask again later.")
    raise not_found(f"Sample {sample_id}")
