"""Routes of uploads for a training: files as they are, streamed to the disk, and their inspection."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from cloud.jobs.desk import TrainingDesk
from cloud.jobs.messages import Inspection
from cloud.jobs.options import ID_PATTERN
from cloud.jobs.uploads import UploadError, UploadFacts
from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import Problem, not_found
from cloud.rest.routers import api_router
from cloud.store.api_tokens import Scope
from cloud.store.training_jobs import JobRefusedError

UploadId = Annotated[str, Path(pattern=ID_PATTERN)]
FileName = Annotated[str, Path(max_length=1024)]
NO_TRAINING = Problem(409, "no-training", "This process runs no training: ask one with the role all or console.")
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


class UploadItem(BaseModel):
    """One upload; `inspection` is null until it was asked for, and after each further file."""

    upload_id: str
    created_at: str
    bytes: int
    files: int
    sealed: bool
    inspection: Inspection | None


def upload_routes(desk: TrainingDesk | None) -> APIRouter:
    """Return the routes; without `desk` they answer 409."""
    router = api_router("training")

    @router.post(
        "/training/uploads",
        response_model=UploadItem,
        status_code=201,
        **needs(Scope.TRAINING_WRITE, 400, 408, 409, 413, 507),
    )
    async def make_upload(request: Request) -> dict[str, Any]:
        """Make an empty upload, which its maker alone sees."""
        here = _here(desk)
        with upload_problems():
            return await _item(here, await here.new_upload(caller_of(request).actor))

    @router.get("/training/uploads/{upload_id}", response_model=UploadItem, **needs(Scope.TRAINING_WRITE, 404, 409))
    async def show_upload(request: Request, upload_id: UploadId) -> dict[str, Any]:
        """Return an upload of the caller."""
        here = _here(desk)
        return await _item(here, await _own(here, request, upload_id))

    @router.delete("/training/uploads/{upload_id}", status_code=204, **needs(Scope.TRAINING_WRITE, 404, 409))
    async def delete_upload(request: Request, upload_id: UploadId) -> None:
        """Delete an upload with its files; 409 while a job that is not over uses it."""
        with upload_problems():
            if not await _here(desk).remove_upload(upload_id, caller_of(request).actor):
                raise not_found(f"Upload {upload_id}")

    _add_inspection(router, desk)
    _add_files(router, desk)
    return router


def _add_inspection(router: APIRouter, desk: TrainingDesk | None) -> None:
    @router.post(
        "/training/uploads/{upload_id}/inspection",
        response_model=UploadItem,
        **needs(Scope.TRAINING_WRITE, 400, 404, 408, 409, 413, 507),
    )
    async def inspect_upload(request: Request, upload_id: UploadId) -> dict[str, Any]:
        """Unpack and look at the files; the answer has columns with their roles, counts and problems."""
        here = _here(desk)
        facts = await _own(here, request, upload_id)
        with upload_problems():
            return await _item(here, await here.inspect(facts))

    @router.get(
        "/training/uploads/{upload_id}/previews/{name}",
        response_class=Response,
        **needs(Scope.TRAINING_WRITE, 404, 409, responses={200: {"content": {"image/jpeg": {}}}}),
    )
    async def show_preview(request: Request, upload_id: UploadId, name: FileName) -> Response:
        """Return a small picture of an uploaded image."""
        here = _here(desk)
        data = await here.preview(await _own(here, request, upload_id), name)
        if data is None:
            raise not_found(f"Preview {name[:80]}")
        return Response(data, media_type="image/jpeg")


def _add_files(router: APIRouter, desk: TrainingDesk | None) -> None:
    access = needs(Scope.TRAINING_WRITE, 400, 404, 409, 413, 507)
    access["openapi_extra"] |= _BODY

    @router.put("/training/uploads/{upload_id}/files/{name:path}", response_model=UploadItem, **access)
    async def put_file(request: Request, upload_id: UploadId, name: FileName) -> dict[str, Any]:
        """Store the body of the request as one file; `name` may hold folders. It is streamed to the disk."""
        here = _here(desk)
        facts = await _own(here, request, upload_id)
        with upload_problems():
            try:
                await here.uploads.receive(facts, name, request.stream())
            except ClientDisconnect:
                raise Problem(400, "cut-off", "The file was cut off: send it again.") from None
        return await _item(here, await _own(here, request, upload_id))


@contextlib.contextmanager
def upload_problems() -> Iterator[None]:
    """Answer refusals of the block with problem details."""
    try:
        yield
    except UploadError as error:
        if error.is_full:
            raise Problem(507, "no-room", str(error)) from None
        raise Problem(409, "upload-refused", str(error)) from None
    except JobRefusedError as error:
        raise Problem(409, "upload-refused", str(error)) from None


def _here(desk: TrainingDesk | None) -> TrainingDesk:
    if desk is None:
        raise NO_TRAINING
    return desk


async def _own(desk: TrainingDesk, request: Request, upload_id: str) -> UploadFacts:
    facts = await desk.uploads.find(upload_id, caller_of(request).actor)
    if facts is None:
        raise not_found(f"Upload {upload_id}")
    return facts


async def _item(desk: TrainingDesk, facts: UploadFacts) -> dict[str, Any]:
    size_bytes, files = await desk.uploads.size(facts.upload_id)
    return {
        "upload_id": facts.upload_id,
        "created_at": rfc3339(facts.created_at_s),
        "bytes": size_bytes,
        "files": files,
        "sealed": facts.sealed,
        "inspection": facts.inspection,
    }
