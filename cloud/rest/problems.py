"""Errors of the HTTP API as problem details (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from shared.errors import DataError, StorageError, StoreBusyError

BUSY_RETRY_S = 2
MEDIA_TYPE = "application/problem+json"
ANY_REQUEST, WITH_BODY = (401, 403, 422, 429, 503), (400, 408, 413)  # statuses of errors
TYPE_PREFIX = "urn:vedette:problem:"
_KIND_OF_STATUS = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed"}


class ProblemDetails(BaseModel):
    """Error (RFC 9457); `type` names its kind, `detail` the remedy, and further members its facts."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these errors for the OpenAPI document, whose schemas must hold ProblemDetails."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    content = {MEDIA_TYPE: {"schema": schema}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class Problem(HTTPException):
    """A refused request: name of the problem (`kind`), remedy (`detail`), further facts (`members`)."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind, self.members = kind, members

    def response(self) -> JSONResponse:
        """Return the problem as a response."""
        body = {
            "type": f"{TYPE_PREFIX}{self.kind}",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "detail": self.detail,
            **self.members,
        }
        return JSONResponse(body, self.status_code, self.headers, media_type=MEDIA_TYPE)


def not_found(what: str) -> Problem:
    """Return the problem of a thing that is not in the store."""
    return Problem(404, "not-found", f"{what}: not in the store. It may have expired.")


def storage_problem(error: StorageError) -> Problem:
    """Return the problem of a store that cannot answer now."""
    if isinstance(error, StoreBusyError):
        return Problem(503, "busy", str(error), headers={"Retry-After": str(BUSY_RETRY_S)})
    return Problem(503, "store-unavailable", "The store cannot be used: see the log of the service.")


def add_handlers(app: FastAPI) -> None:
    """Answer every error of the application with problem details."""

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Problem):
            return error.response()
        kind = _KIND_OF_STATUS.get(error.status_code, "refused")
        return Problem(error.status_code, kind, error.detail, headers=dict(error.headers or {})).response()

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [{"at": "/".join(map(str, item["loc"])), "detail": str(item["msg"])} for item in error.errors()]
        detail = f"{found[0]['at']}: {found[0]['detail']}" if found else "The request is not valid."
        return Problem(422, "invalid-request", detail, errors=found).response()

    @app.exception_handler(DataError)
    async def on_bad_data(_: Request, error: DataError) -> JSONResponse:
        return Problem(422, "invalid-request", str(error)).response()

    @app.exception_handler(StorageError)
    async def on_storage_error(_: Request, error: StorageError) -> JSONResponse:
        return storage_problem(error).response()

    @app.exception_handler(Exception)
    async def on_fault(_: Request, __: Exception) -> JSONResponse:
        return Problem(500, "fault", "The service failed: see its log.").response()
