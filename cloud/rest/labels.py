"""Routes of labels."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.defect_classes import MAX_CLASS_CHARACTERS, ClassRefusedError, UnknownClassError
from cloud.store.labels import (
    MAX_AUTHOR_CHARACTERS,
    MAX_KEY_CHARACTERS,
    MAX_NOTE_CHARACTERS,
    KeyReusedError,
    Label,
    NewLabel,
    StoredLabel,
    add_label,
    label_history,
    label_page,
)

ClassName = Annotated[
    str,
    Field(
        max_length=MAX_CLASS_CHARACTERS,
        description="Name of a class of the list, for a label real or missed; empty: none.",
    ),
]
ClientKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_KEY_CHARACTERS,
        description="Name of this request, unique for the client: a repeated request stores nothing.",
    ),
]


class LabelRequest(BaseModel):
    """A label to store; `author` is the person who decided.

    The default is the name of the token, or of the signed-in account, which can give no other one.
    """

    model_config = ConfigDict(extra="forbid")

    label: Label
    defect_class: ClassName = ""
    author: str | None = Field(default=None, min_length=1, max_length=MAX_AUTHOR_CHARACTERS)
    note: str = Field(default="", max_length=MAX_NOTE_CHARACTERS)


class LabelItem(BaseModel):
    """One label; `current`: it is the newest of its sample. `defect_class` is empty without one."""

    sample_id: uuid.UUID
    label: Label
    defect_class: str
    author: str
    note: str
    at: str
    current: bool


class LabelPage(BaseModel):
    """Page of labels, newest first; `next` is null on the last page."""

    items: list[LabelItem]
    next: str | None


def label_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes of labels."""
    router = api_router("labels")
    _add_lists(router, reading)
    _add_label(router, writing)
    return router


def _add_lists(router: APIRouter, reading: Store) -> None:
    @router.get("/labels", response_model=LabelPage, **needs(Scope.LABELS_READ))
    async def list_labels(
        request: Request,
        current: Annotated[bool, Query(description="Only the newest label of each sample.")] = False,
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of the labels of all samples, newest first."""
        key = read_cursor(request, cursor, int)
        before = key[0] if key is not None else None
        async with reading.reading() as connection:
            sites = caller_of(request).sites
            found = await label_page(connection, only_current=current, before=before, size=size + 1, sites=sites)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([label_item(item) for item in found[:size]], following)

    @router.get("/samples/{sample_id}/labels", response_model=list[LabelItem], **needs(Scope.LABELS_READ))
    async def labels_of_sample(sample_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return all labels of one sample, newest first; none for an unknown sample."""
        async with reading.reading() as connection:
            return [label_item(item) for item in await label_history(connection, sample_id)]


def _add_label(router: APIRouter, writing: Store) -> None:
    @router.post(
        "/samples/{sample_id}/labels",
        response_model=LabelItem,
        status_code=201,
        **needs(
            Scope.LABELS_WRITE,
            404,
            *WITH_BODY,
            responses={200: {"model": LabelItem, "description": "Stored by an earlier request with the same key."}},
        ),
    )
    async def label_sample(
        request: Request,
        response: Response,
        sample_id: uuid.UUID,
        body: LabelRequest,
        idempotency_key: ClientKey = None,
    ) -> dict[str, Any]:
        """Add a label to a stored sample; the newest one counts, and the earlier ones stay."""
        caller = caller_of(request)
        if caller.is_person and body.author not in (None, caller.name):
            raise Problem(422, "foreign-author", f"You are signed in as {caller.name!r}: leave out the author.")
        new = NewLabel(body.label, body.author or caller.name, body.note, idempotency_key, body.defect_class)
        try:
            stored = await add_label(writing, sample_id, new, caller.actor)
        except KeyReusedError as error:
            raise Problem(422, "key-reused", str(error)) from None
        except (UnknownClassError, ClassRefusedError) as error:
            raise class_problem(error) from None
        if stored is None:
            raise not_found(f"Sample {sample_id}")
        label, is_new = stored
        response.status_code = 201 if is_new else 200
        return label_item(label)


def class_problem(error: Exception) -> Problem:
    """Return the problem of a label or decision whose defect class is unknown or not allowed."""
    return Problem(422, "class-refused", str(error))


def label_item(label: StoredLabel) -> dict[str, Any]:
    """Return one label as a JSON value."""
    return {
        "sample_id": str(label.sample_id),
        "label": label.label.value,
        "defect_class": label.defect_class,
        "author": label.author,
        "note": label.note,
        "at": rfc3339(label.at_s),
        "current": label.is_current,
    }
