"""Routes that change review items: decisions, undo and reviewed marks."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.rest.access import caller_of, needs
from cloud.rest.labels import ClassName, ClientKey, class_problem
from cloud.rest.problems import WITH_BODY, Problem
from cloud.rest.review_items import DecisionItem, decision_item
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.defect_classes import ClassRefusedError, UnknownClassError
from cloud.store.labels import MAX_NOTE_CHARACTERS, KeyReusedError, Label
from cloud.store.review.decisions import (
    MAX_ITEMS,
    Decider,
    DecisionConflictError,
    NewDecision,
    TooManyVerdictsError,
    UnknownItemsError,
    decide,
    undo,
)
from cloud.store.review.marks import mark

_MAX_NUMBER = 2**63 - 1
Number = Annotated[int, Field(ge=1, le=_MAX_NUMBER)]


class SeenItem(BaseModel):
    """Item to decide, and the number of its newest decision that the caller has seen (0: none)."""

    model_config = ConfigDict(extra="forbid")

    item: Number
    seen: Annotated[int, Field(ge=0, le=_MAX_NUMBER)] = 0


class DecisionRequest(BaseModel):
    """Decision on items; on all of them or on none."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[SeenItem], Field(min_length=1, max_length=MAX_ITEMS)]
    decision: Literal["real", "false_alarm", "unsure"]
    defect_class: ClassName = ""
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS)


class UndoRequest(BaseModel):
    """Numbers of the decisions to take back; all of them or none."""

    model_config = ConfigDict(extra="forbid")

    decisions: Annotated[list[Number], Field(min_length=1, max_length=MAX_ITEMS)]


class MarkRequest(BaseModel):
    """Items to mark as reviewed by the caller, or not."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[Number], Field(min_length=1, max_length=MAX_ITEMS)]
    reviewed: bool = True


class DecisionList(BaseModel):
    """Decisions that were stored, one for each item."""

    items: list[DecisionItem]


class MarkedItems(BaseModel):
    """Items that were marked: those that exist."""

    items: list[int]


def decision_routes(writing: Store) -> APIRouter:
    """Return the routes."""
    router = api_router("review", "/review")

    @router.post("/decisions", response_model=DecisionList, **needs(Scope.REVIEW_DECIDE, 404, 409, *WITH_BODY))
    async def decide_items(
        request: Request, body: DecisionRequest, idempotency_key: ClientKey = None
    ) -> dict[str, Any]:
        """Decide on items, and label all their verdicts; 409 if one has a later decision than the caller has seen."""
        seen = {item.item: item.seen for item in body.items}
        wanted = NewDecision(Label(body.decision), seen, body.note, body.defect_class)
        try:
            stored = await decide(writing, wanted, decider(request, idempotency_key))
        except _REFUSALS as error:
            raise _problem(error) from None
        return {"items": [decision_item(decision) for decision in stored]}

    @router.post("/undo", response_model=DecisionList, **needs(Scope.REVIEW_DECIDE, 404, 409, *WITH_BODY))
    async def undo_decisions(request: Request, body: UndoRequest, idempotency_key: ClientKey = None) -> dict[str, Any]:
        """Take decisions back, with the labels that they gave; 409 for one that is not the newest of its item."""
        try:
            stored = await undo(writing, sorted(set(body.decisions)), decider(request, idempotency_key))
        except _REFUSALS as error:
            raise _problem(error) from None
        return {"items": [decision_item(decision) for decision in stored]}

    @router.post("/marks", response_model=MarkedItems, **needs(Scope.REVIEW_MARK, *WITH_BODY))
    async def mark_items(request: Request, body: MarkRequest) -> dict[str, Any]:
        """Mark items as reviewed by the caller alone, or take the mark away."""
        caller = caller_of(request)
        items = sorted(set(body.items))
        return {"items": await mark(writing, caller.actor, items, is_reviewed=body.reviewed, sites=caller.sites)}

    return router


_CLASS_REFUSALS = (UnknownClassError, ClassRefusedError)
_REFUSALS = (UnknownItemsError, DecisionConflictError, TooManyVerdictsError, KeyReusedError, *_CLASS_REFUSALS)


def decider(request: Request, key: str | None) -> Decider:
    """Return who decides, with the key of the request."""
    caller = caller_of(request)
    return Decider(caller.name, caller.actor, caller.sites, key)


def _problem(error: Exception) -> Problem:
    if isinstance(error, UnknownItemsError):
        return Problem(404, "not-found", str(error), items=list(error.items))
    if isinstance(error, DecisionConflictError):
        found = [decision_item(decision) for decision in error.found]
        return Problem(409, "decided-meanwhile", str(error), decisions=found)
    if isinstance(error, _CLASS_REFUSALS):
        return class_problem(error)
    if isinstance(error, TooManyVerdictsError):
        return Problem(422, "too-many-verdicts", str(error))
    return Problem(422, "key-reused", str(error))
