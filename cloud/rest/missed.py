"""Routes of anomalies that people report as missed by the edge."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.labels import ClassName, ClientKey, class_problem
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor, time_or_none
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.review_decisions import decider
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.defect_classes import ClassRefusedError, UnknownClassError
from cloud.store.labels import MAX_NOTE_CHARACTERS, KeyReusedError
from cloud.store.missed_reports import (
    MAX_SOURCE_CHARACTERS,
    NewReport,
    ReportRefusedError,
    StoredReport,
    UnknownSubjectError,
    report_miss,
    report_page,
    withdraw_report,
)

ReportNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]


class MissRequest(BaseModel):
    """Miss to report: either `sample_id`, or `device_id`, `source_id`, `begin` and `end` of a time without samples."""

    model_config = ConfigDict(extra="forbid")

    sample_id: uuid.UUID | None = None
    device_id: str = Field(default="", max_length=64)
    source_id: str = Field(default="", max_length=MAX_SOURCE_CHARACTERS)
    begin: str = Field(default="", max_length=64, description="RFC 3339.")
    end: str = Field(default="", max_length=64, description="RFC 3339.")
    defect_class: ClassName = ""
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS)


class MissItem(BaseModel):
    """One report. `sample_id` is null for a time in which nothing was sent, and for an expired sample."""

    number: int
    device_id: str
    site: str
    source_id: str
    sample_id: uuid.UUID | None
    begin: str
    end: str
    defect_class: str
    note: str
    author: str
    at: str


class MissList(BaseModel):
    """Page of reports, newest first; `next` is null on the last page."""

    items: list[MissItem]
    next: str | None


def missed_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes."""
    router = api_router("labels", "/missed")
    _add_list(router, reading)
    _add_changes(router, writing)
    return router


def _add_list(router: APIRouter, reading: Store) -> None:
    @router.get("", response_model=MissList, **needs(Scope.LABELS_READ))
    async def list_misses(
        request: Request, device: Name = "", cursor: CursorText = "", size: Size = 50
    ) -> dict[str, Any]:
        """Return one page of reports, newest first. They are no random sample: no bound is made of them."""
        key, sites = read_cursor(request, cursor, int), caller_of(request).sites
        before = key[0] if key is not None else None
        async with reading.reading() as connection:
            found = await report_page(connection, device_id=device, sites=sites, before=before, size=size + 1)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([_item(each) for each in found[:size]], following)


def _add_changes(router: APIRouter, writing: Store) -> None:
    @router.post(
        "",
        response_model=MissItem,
        status_code=201,
        **needs(
            Scope.LABELS_WRITE,
            404,
            *WITH_BODY,
            responses={200: {"model": MissItem, "description": "Stored by an earlier request with the same key."}},
        ),
    )
    async def new_miss(
        request: Request, response: Response, body: MissRequest, idempotency_key: ClientKey = None
    ) -> dict[str, Any]:
        """Report an anomaly that the edge missed; a report of a sample labels it missed."""
        new = NewReport(
            body.sample_id,
            body.device_id,
            body.source_id,
            time_or_none(body.begin) or 0.0,
            time_or_none(body.end) or 0.0,
            body.defect_class,
            body.note,
        )
        try:
            stored, is_new = await report_miss(writing, new, decider(request, idempotency_key))
        except UnknownSubjectError as error:
            raise not_found(str(error)) from None
        except (UnknownClassError, ClassRefusedError) as error:
            raise class_problem(error) from None
        except KeyReusedError as error:
            raise Problem(422, "key-reused", str(error)) from None
        except ReportRefusedError as error:
            raise Problem(422, "report-refused", str(error)) from None
        response.status_code = 201 if is_new else 200
        return _item(stored)

    @router.delete("/{report}", status_code=204, **needs(Scope.LABELS_WRITE, 404))
    async def withdraw(request: Request, report: ReportNumber) -> Response:
        """Withdraw a report; it stays in the audit log. 404 for one that is withdrawn already."""
        try:
            await withdraw_report(writing, report, decider(request, None))
        except UnknownSubjectError as error:
            raise not_found(str(error)) from None
        return Response(status_code=204)


def _item(stored: StoredReport) -> dict[str, Any]:
    names = ("number", "device_id", "site", "source_id", "defect_class", "note", "author")
    return {
        **{name: getattr(stored, name) for name in names},
        "sample_id": str(stored.sample_id) if stored.sample_id is not None else None,
        "begin": rfc3339(stored.begin_s),
        "end": rfc3339(stored.end_s),
        "at": rfc3339(stored.at_s),
    }
