"""Routes of mutes: their list, the preview of one, its making, end and return."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.labels import ClientKey
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.review_decisions import decider
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.labels import MAX_NOTE_CHARACTERS, KeyReusedError
from cloud.store.review.mute_preview import (
    DEFAULT_LIKENESS,
    LEAST_LIKENESS,
    MutePreview,
    NoPatternError,
    pattern_of,
    preview_mute,
)
from cloud.store.review.mutes import (
    DEFAULT_DAYS,
    MAX_DAYS,
    HiddenCounts,
    HidesRealError,
    MuteEndedError,
    NewMute,
    StoredMute,
    TooManyMutesError,
    UnknownMuteError,
    end_mute,
    hidden_counts,
    make_mute,
    mute_page,
    resume_mute,
)
from cloud.store.review.muting import MuteScope
from shared.modality import Modality

_MAX_NUMBER = 2**63 - 1
MuteNumber = Annotated[int, Path(ge=1, le=_MAX_NUMBER)]


class PatternRequest(BaseModel):
    """Item whose pattern to mute, where, and how like it a deviation must be (cosine)."""

    model_config = ConfigDict(extra="forbid")

    item: Annotated[int, Field(ge=1, le=_MAX_NUMBER)]
    scope: MuteScope = MuteScope.SOURCE
    likeness: Annotated[float, Field(ge=LEAST_LIKENESS, le=1.0, allow_inf_nan=False)] = DEFAULT_LIKENESS


class MuteRequest(PatternRequest):
    """Mute to make. `accepts_real` confirms one that would have hidden items that were called real."""

    days: Annotated[float, Field(gt=0.0, le=MAX_DAYS, allow_inf_nan=False)] = DEFAULT_DAYS
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS)
    accepts_real: bool = False


class PreviewItem(BaseModel):
    """Review items since `since` that a mute would have hidden: their numbers, the newest first.

    `items` are those of the scope, `compared` those that have a pattern; `cut`: there were too many to look at all.
    `real` are hidden ones that a person called real or missed, `left` hidden ones that nobody has decided.
    """

    since: str
    items: int
    compared: int
    cut: bool
    hidden: list[int]
    real: list[int]
    left: list[int]


class MuteItem(BaseModel):
    """One mute. `site`, `device_id` and `source_id` are empty where its scope is larger.

    `hidden_real` counts the items that it hid and that a person called real afterwards.
    """

    number: int
    scope: MuteScope
    site: str
    device_id: str
    source_id: str
    bundle_name: str
    modality: Modality
    signature_version: int
    likeness: float
    p_value: float
    item: int
    note: str
    author: str
    at: str
    expires_at: str
    ended_at: str | None
    ended_by: str
    active: bool
    hidden_items: int
    hidden_verdicts: int
    hidden_last_day: int
    hidden_last_week: int
    hidden_real: int


class MuteList(BaseModel):
    """Page of mutes, newest first; `next` is null on the last page."""

    items: list[MuteItem]
    next: str | None


class ChangedMute(MuteItem):
    """Mute that was ended or resumed; `items` came back into the inbox, or left it again."""

    items: int


def mute_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes."""
    router = api_router("review", "/mutes")
    _add_reading(router, reading)
    _add_changes(router, writing)
    return router


def _add_reading(router: APIRouter, reading: Store) -> None:
    @router.get("", response_model=MuteList, **needs(Scope.MUTES_READ))
    async def list_mutes(
        request: Request,
        active: Annotated[bool | None, Query(description="Only mutes that hide something now, or only others.")] = None,
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of mutes, newest first; an account for single sites sees those of its sites."""
        key, sites = read_cursor(request, cursor, int), caller_of(request).sites
        before = key[0] if key is not None else None
        async with reading.reading() as connection:
            found = await mute_page(connection, is_active=active, sites=sites, before=before, size=size + 1)
            counts = await hidden_counts(connection, [mute.number for mute in found])
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        shown = found[:size]
        return page([mute_item(mute, counts.get(mute.number, HiddenCounts())) for mute in shown], following)

    @router.post("/preview", response_model=PreviewItem, **needs(Scope.MUTES_READ, 404, 409, *WITH_BODY))
    async def preview(request: Request, body: PatternRequest) -> dict[str, Any]:
        """Return what a mute would have hidden in the last week; nothing is stored."""
        sites = caller_of(request).sites
        try:
            async with reading.reading() as connection:
                pattern = await pattern_of(
                    connection, body.item, body.scope, body.likeness, sites, needs_decision=False
                )
                return preview_item(await preview_mute(connection, pattern))
        except NoPatternError as error:
            raise _problem(error) from None


def _add_changes(router: APIRouter, writing: Store) -> None:
    @router.post("", response_model=MuteItem, status_code=201, **needs(Scope.MUTES_WRITE, 404, 409, *WITH_BODY))
    async def new_mute(request: Request, body: MuteRequest, idempotency_key: ClientKey = None) -> dict[str, Any]:
        """Mute the pattern of a false alarm; 409 with a preview if it would have hidden items called real."""
        new = NewMute(body.item, body.scope, body.likeness, body.days, body.note, body.accepts_real)
        try:
            made = await make_mute(writing, new, decider(request, idempotency_key))
        except _REFUSALS as error:
            raise _problem(error) from None
        return await _with_counts(writing, made)

    @router.post("/{mute}/end", response_model=ChangedMute, **needs(Scope.MUTES_WRITE, 404, 409))
    async def end(request: Request, mute: MuteNumber) -> dict[str, Any]:
        """End a mute now, and bring back what it hides and nobody has decided."""
        try:
            ended, items = await end_mute(writing, mute, decider(request, None))
        except _REFUSALS as error:
            raise _problem(error) from None
        return await _with_counts(writing, ended) | {"items": items}

    @router.post("/{mute}/resume", response_model=ChangedMute, **needs(Scope.MUTES_WRITE, 404, 409))
    async def resume(request: Request, mute: MuteNumber) -> dict[str, Any]:
        """Take back that a mute was ended, until its own time is over."""
        try:
            resumed, items = await resume_mute(writing, mute, decider(request, None))
        except _REFUSALS as error:
            raise _problem(error) from None
        return await _with_counts(writing, resumed) | {"items": items}


_REFUSALS = (NoPatternError, HidesRealError, TooManyMutesError, KeyReusedError, UnknownMuteError, MuteEndedError)


def _problem(error: Exception) -> Problem:
    if isinstance(error, UnknownMuteError) or (isinstance(error, NoPatternError) and error.is_unknown):
        return not_found(str(error).split(":")[0].removeprefix("There is no ").rstrip(".").capitalize())
    if isinstance(error, HidesRealError):
        return Problem(409, "hides-real", str(error), preview=preview_item(error.preview))
    if isinstance(error, KeyReusedError):
        return Problem(422, "key-reused", str(error))
    if isinstance(error, NoPatternError):
        return Problem(409, "no-pattern", str(error))
    if isinstance(error, TooManyMutesError):
        return Problem(409, "too-many-mutes", str(error))
    return Problem(409, "mute-ended", str(error))


def preview_item(preview: MutePreview) -> dict[str, Any]:
    """Return a preview as a JSON value."""
    return {
        "since": rfc3339(preview.since_s),
        "items": preview.items,
        "compared": preview.compared,
        "cut": preview.is_cut,
        "hidden": list(preview.hidden),
        "real": list(preview.real),
        "left": list(preview.left),
    }


async def _with_counts(store: Store, mute: StoredMute) -> dict[str, Any]:
    """Return a changed mute as a JSON value, with its counts of hidden items."""
    async with store.reading() as connection:
        counts = await hidden_counts(connection, [mute.number])
    return mute_item(mute, counts.get(mute.number, HiddenCounts()))


def mute_item(mute: StoredMute, counts: HiddenCounts) -> dict[str, Any]:
    """Return one mute as a JSON value."""
    pattern = mute.pattern
    return {
        **{name: getattr(pattern, name) for name in ("site", "device_id", "source_id", "bundle_name", "modality")},
        **{name: getattr(pattern, name) for name in ("likeness", "p_value")},
        **{name: getattr(mute, name) for name in ("number", "item", "note", "author", "ended_by")},
        **{name: getattr(mute, name) for name in ("hidden_items", "hidden_verdicts")},
        "scope": pattern.scope.value,
        "signature_version": pattern.version,
        "at": rfc3339(mute.at_s),
        "expires_at": rfc3339(mute.expires_at_s),
        "ended_at": None if mute.ended_at_s is None else rfc3339(mute.ended_at_s),
        "active": mute.is_active(time.time()),
        "hidden_last_day": counts.day,
        "hidden_last_week": counts.week,
        "hidden_real": counts.real,
    }
