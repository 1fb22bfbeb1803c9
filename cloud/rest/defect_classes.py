"""Routes of defect classes: the list that labels name."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.defect_classes import (
    MAX_CLASS_CHARACTERS,
    ClassRefusedError,
    DefectClass,
    UnknownClassError,
    add_class,
    listed_classes,
    merge_class,
    remove_class,
    rename_class,
)

_MAX_NUMBER = 2**63 - 1
ClassNumber = Annotated[int, Path(ge=1, le=_MAX_NUMBER)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_CLASS_CHARACTERS)]


class ClassItem(BaseModel):
    """One defect class."""

    number: int
    name: str
    added_by: str
    added_at: str


class ClassList(BaseModel):
    """All defect classes, in the order in which they were added."""

    items: list[ClassItem]


class ClassRequest(BaseModel):
    """Class to add."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class ClassChange(BaseModel):
    """Another name of a class, or the number of the class that its labels shall name instead."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    merge_into: Annotated[int, Field(ge=1, le=_MAX_NUMBER)] | None = None


def class_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes."""
    router = api_router("labels", "/defect-classes")
    _add_list(router, reading, writing)
    _add_changes(router, writing)
    return router


def _add_list(router: APIRouter, reading: Store, writing: Store) -> None:
    @router.get("", response_model=ClassList, **needs(Scope.LABELS_READ))
    async def list_classes() -> dict[str, Any]:
        """Return the classes that labels may name."""
        async with reading.reading() as connection:
            return {"items": [_item(each) for each in await listed_classes(connection)]}

    @router.post(
        "",
        response_model=ClassItem,
        status_code=201,
        **needs(
            Scope.LABELS_WRITE,
            409,
            *WITH_BODY,
            responses={200: {"model": ClassItem, "description": "There is a class with this name already."}},
        ),
    )
    async def new_class(request: Request, response: Response, body: ClassRequest) -> dict[str, Any]:
        """Add a class, or return the one with this name in any case; 409 if there are too many."""
        try:
            found, is_new = await add_class(writing, body.name, caller_of(request).actor)
        except ClassRefusedError as error:
            raise Problem(409, "class-refused", str(error)) from None
        response.status_code = 201 if is_new else 200
        return _item(found)


def _add_changes(router: APIRouter, writing: Store) -> None:
    @router.patch("/{number}", response_model=ClassItem, **needs(Scope.CLASSES_WRITE, 404, 409, *WITH_BODY))
    async def change_class(request: Request, number: ClassNumber, body: ClassChange) -> dict[str, Any]:
        """Rename a class on all labels, or merge it into another one, which is returned."""
        if (body.name is None) == (body.merge_into is None):
            raise Problem(422, "invalid-request", "Give either a name or merge_into.")
        actor = caller_of(request).actor
        try:
            if body.merge_into is not None:
                return _item(await merge_class(writing, number, body.merge_into, actor))
            return _item(await rename_class(writing, number, body.name or "", actor))
        except (UnknownClassError, ClassRefusedError) as error:
            raise _problem(error) from None

    @router.delete("/{number}", status_code=204, **needs(Scope.CLASSES_WRITE, 404))
    async def delete_class(request: Request, number: ClassNumber) -> Response:
        """Take a class off the list; labels that name it keep its name."""
        try:
            await remove_class(writing, number, caller_of(request).actor)
        except UnknownClassError as error:
            raise _problem(error) from None
        return Response(status_code=204)


def _problem(error: Exception) -> Problem:
    if isinstance(error, UnknownClassError):
        return Problem(404, "not-found", str(error))
    return Problem(409, "class-refused", str(error))


def _item(found: DefectClass) -> dict[str, Any]:
    return {
        "number": found.number,
        "name": found.name,
        "added_by": found.added_by,
        "added_at": rfc3339(found.added_at_s),
    }
