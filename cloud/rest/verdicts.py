"""Routes of verdicts."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.labels import LabelItem, label_item
from cloud.rest.pages import CursorText, Name, Size, TimeText, next_cursor, page, read_cursor, time_or_none
from cloud.rest.problems import Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.labels import Label, current_labels, label_history, newest_label
from cloud.store.queries import is_waiting, judged_sample, verdict_page
from cloud.store.verdict_columns import COLUMNS, VerdictRow, finite_or_none, opinions_to_json
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.modality import Modality
from shared.samples import Decision, Route


class EdgeResult(BaseModel):
    """Result of the screener; `score` is null where it was not a number."""

    p_value: float | None
    extrapolated: bool
    score: float | None
    bundle_id: str
    calibration_id: str
    artefact: str


class CloudResult(BaseModel):
    """Fused result of the analyzers; `p_value` is null where the cloud could not judge the sample.

    It is an upper bound for an anomalous sample with a `reason`.
    """

    p_value: float | None
    extrapolated: bool
    bundle_id: str


class VerdictItem(BaseModel):
    """One verdict; `label` is the newest label of its sample, null without one."""

    sample_id: uuid.UUID
    device_id: str
    source_id: str
    origin: str
    modality: Modality
    route: Route
    decision: Decision
    reason: str
    captured_at: str
    received_at: str
    judged_at: str
    edge: EdgeResult
    cloud: CloudResult
    label: Label | None


class VerdictList(BaseModel):
    """Page of verdicts, newest first; `next` is null on the last page."""

    items: list[VerdictItem]
    next: str | None


class OpinionItem(BaseModel):
    """Result of one analyzer."""

    analyzer: str
    score: float | None
    p_value: float | None
    extrapolated: bool


class ContributionItem(BaseModel):
    """Share of one feature, channel or frame in the deviation."""

    name: str
    share: float | None


class VerdictWithOpinions(VerdictItem):
    """One verdict in full; `labels` is the history, newest first."""

    payload_bytes: int
    opinions: list[OpinionItem]
    contributions: list[ContributionItem]
    labels: list[LabelItem]


def verdict_routes(store: Store) -> APIRouter:
    """Return the routes of verdicts."""
    router = api_router("verdicts")
    _add_list(router, store)
    _add_one(router, store)
    return router


def _add_list(router: APIRouter, store: Store) -> None:
    @router.get("/verdicts", response_model=VerdictList, **needs(Scope.VERDICTS_READ))
    async def list_verdicts(
        request: Request,
        device: Name = "",
        modality: Modality | None = None,
        route: Route | None = None,
        decision: Decision | None = None,
        label: Annotated[Label | None, Query(description="Newest label of the sample.")] = None,
        text: Annotated[Name, Query(description="Beginning of an origin or source; *TEXT: part.")] = "",
        since: Annotated[TimeText, Query(alias="from", description="Judged at this time or later.")] = "",
        until: Annotated[TimeText, Query(alias="to", description="Judged before this time.")] = "",
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of verdicts, newest first.

        A search for a text may give fewer items than `size`, even none, and go on with `next`.
        """
        times = (time_or_none(since), time_or_none(until))
        sites = caller_of(request).sites
        wanted = VerdictFilter(device, modality, route, decision, text, *times, label=label, sites=sites)
        key = read_cursor(request, cursor, float, int)
        before = VerdictKey(*key) if key is not None else None
        async with store.reading() as connection:
            found = await verdict_page(connection, wanted, before=before, size=size)
            labels = await current_labels(connection, [row.number for row in found.rows])
        older = found.older
        following = next_cursor(request, older.judged_at_s, older.number) if older is not None else None
        return page([verdict_item(row, labels.get(row.number)) for row in found.rows], following)


def _add_one(router: APIRouter, store: Store) -> None:
    @router.get("/verdicts/{sample_id}", response_model=VerdictWithOpinions, **needs(Scope.VERDICTS_READ, 404, 409))
    async def one_verdict(sample_id: uuid.UUID) -> dict[str, Any]:
        """Return one verdict in full; 404 for an unknown sample, 409 for one that waits or may wait."""
        async with store.reading() as connection:
            sample = await judged_sample(connection, sample_id)
            if sample is None and await is_waiting(connection, sample_id):
                raise Problem(409, "not-judged", f"Sample {sample_id} has no verdict yet: ask again later.")
            if sample is None:
                raise not_found(f"Sample {sample_id}")
            history = await label_history(connection, sample_id)
        record = sample.record
        return verdict_item(record, newest_label(history)) | {
            "payload_bytes": record.payload_bytes,
            "opinions": opinions_to_json(record.opinions),
            "contributions": [{"name": name, "share": finite_or_none(share)} for name, share in record.contributions],
            "labels": [label_item(item) for item in history],
        }


def verdict_item(row: VerdictRow, label: Label | None) -> dict[str, Any]:
    """Return one verdict as a JSON value."""
    return {
        **row.model_dump(mode="json", include=COLUMNS.keys() & VerdictItem.model_fields.keys()),
        "captured_at": rfc3339(row.captured_at_s),
        "received_at": rfc3339(row.received_at_s),
        "judged_at": rfc3339(row.judged_at_s),
        "edge": {
            "p_value": finite_or_none(row.edge_p_value),
            "extrapolated": row.edge_extrapolated,
            "score": finite_or_none(row.edge_score),
            "bundle_id": row.edge_bundle_id,
            "calibration_id": row.calibration_id,
            "artefact": row.artefact,
        },
        "cloud": {"p_value": finite_or_none(row.p_value), "extrapolated": row.extrapolated, "bundle_id": row.bundle_id},
        "label": label.value if label is not None else None,
    }
