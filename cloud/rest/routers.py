"""Routers of the HTTP API: all routes are below one prefix and refuse unknown query parameters."""

from fastapi import APIRouter, Depends

from cloud.rest.pages import check_parameters

PREFIX = "/api/v1"


def api_router(tag: str, path: str = "") -> APIRouter:
    """Return a router of routes below PREFIX + `path`, for `create_routes`.

    Prefix and checks are those of the router itself, since `include_router` would make each route once more, and again
    for the first request.
    """
    return APIRouter(prefix=PREFIX + path, tags=[tag], dependencies=[Depends(check_parameters)])
