"""Routes of bundles."""

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from cloud.bundle_report.figures import BundleReport
from cloud.bundle_report.reading import BundleReports
from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.archive_download import ArchiveDownload, DownloadSlots
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.bundle_queries import ListedBundle, bundle_page, one_bundle
from cloud.store.fleet import PLACE_PATTERN
from cloud.store.registry import Registry
from cloud.store.releases import release
from shared.errors import BundleError

MAX_GROUPS = 200
GroupName = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=64)]
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The archive."}
}


class BundleItem(BaseModel):
    """One bundle; `current` of its name, `groups` of devices that get the name, null for all of them."""

    bundle_id: str
    name: str
    version: int
    modality: str
    published_at: str
    parent_bundle_id: str
    edge_archive_bytes: int
    edge_archive_sha256: str
    current: bool
    groups: list[str] | None


class BundleDetail(BundleItem):
    """One bundle with its manifest."""

    manifest: dict[str, Any]


_REPORT_FIELDS: dict[str, Any] = {
    name: (field.annotation, field) for name, field in BundleReport.model_fields.items() if name != "published_at_s"
}
BundleReportItem = create_model(
    "BundleReportItem",
    __doc__="Report on one bundle: evaluation, parity, calibration, origin, signature and where it runs.",
    **_REPORT_FIELDS,
    published_at=(str, ...),
)


class ReleaseRequest(BaseModel):
    """Release of a bundle as the current one of its name.

    `groups` that get the bundles of the name: null leaves them as they are, an empty list is all groups.
    """

    model_config = ConfigDict(extra="forbid")

    groups: Annotated[list[GroupName], Field(max_length=MAX_GROUPS)] | None = None


class BundlePage(BaseModel):
    """Page of bundles by name and version; `next` is null on the last page."""

    items: list[BundleItem]
    next: str | None


def bundle_routes(store: Store, writing: Store, registry: Registry | None, late_after_s: float) -> APIRouter:
    """Return the routes of bundles; without a `registry` no archive can be read or verified."""
    router = api_router("bundles")
    _add_archives(router, store, registry, late_after_s)
    _add_releases(router, store, writing, registry)

    @router.get("/bundles", response_model=BundlePage, **needs(Scope.BUNDLES_READ))
    async def list_bundles(
        request: Request, name: Name = "", cursor: CursorText = "", size: Size = 50
    ) -> dict[str, Any]:
        """Return one page of bundles, by name and version."""
        key = read_cursor(request, cursor, str, int)
        after = (key[0], key[1]) if key is not None else None
        async with store.reading() as connection:
            found = await bundle_page(connection, name=name, after=after, size=size + 1)
        last = found[size - 1].entry if len(found) > size else None
        following = next_cursor(request, last.name, last.version) if last is not None else None
        return page([_item(bundle) for bundle in found[:size]], following)

    @router.get("/bundles/{bundle_id}", response_model=BundleDetail, **needs(Scope.BUNDLES_READ, 404))
    async def bundle(bundle_id: str) -> dict[str, Any]:
        """Return one bundle with its manifest; 404 for an unknown one."""
        async with store.reading() as connection:
            found = await one_bundle(connection, bundle_id)
        if found is None:
            raise not_found(f"Bundle {bundle_id[:128]!r}")
        return _item(found[0]) | {"manifest": found[1]}

    return router


def _add_archives(router: APIRouter, store: Store, registry: Registry | None, late_after_s: float) -> None:
    reports, slots = BundleReports(store, registry, late_after_s), DownloadSlots()

    @router.get("/bundles/{bundle_id}/report", response_model=BundleReportItem, **needs(Scope.BUNDLES_READ, 404))
    async def report(request: Request, bundle_id: str) -> dict[str, Any]:
        """Return evaluation, parity, calibration, origin, signature and devices of a bundle; 404 for an unknown one.

        An account for some sites gets the devices of these.
        """
        found = await reports.report(bundle_id, time.time(), caller_of(request).sites)
        if found is None:
            raise not_found(f"Bundle {bundle_id[:128]!r}")
        values: dict[str, Any] = with_rfc3339(found.model_dump(mode="json"))
        return values

    @router.get(
        "/bundles/{bundle_id}/archive",
        response_class=FileResponse,
        **needs(Scope.BUNDLES_DOWNLOAD, 404, responses=ARCHIVE),
    )
    async def archive(
        request: Request,
        bundle_id: str,
        for_devices: Annotated[bool, Query(description="Without `cloud/`, as devices get it.")] = False,
    ) -> Response:
        """Return the archive of a bundle; it may hold normal samples. 404 for an unknown or missing one.

        503 with Retry-After while too many archives are downloaded.
        """
        if registry is None or (entry := await registry.entry(bundle_id)) is None:
            raise not_found(f"Bundle {bundle_id[:128]!r}")
        try:
            read = registry.edge_archive if for_devices else registry.archive
            path = await read(entry.bundle_id)
            name = f"{entry.bundle_id}{'.edge' if for_devices else ''}.vedette"
            return ArchiveDownload(path, name, caller_of(request).actor, slots)
        except (BundleError, FileNotFoundError):
            raise not_found(f"The archive of {entry.bundle_id}") from None


def _add_releases(router: APIRouter, store: Store, writing: Store, registry: Registry | None) -> None:
    async def item(bundle_id: str) -> dict[str, Any]:
        async with store.reading() as connection:
            found = await one_bundle(connection, bundle_id)
        if found is None:
            raise not_found(f"Bundle {bundle_id[:128]!r}")
        return _item(found[0])

    @router.post(
        "/bundles/{bundle_id}/release",
        response_model=BundleItem,
        **needs(Scope.ROLLOUTS_WRITE, 404, 409, *WITH_BODY),
    )
    async def release_bundle(request: Request, bundle_id: str, body: ReleaseRequest) -> dict[str, Any]:
        """Make a bundle the current one of its name for all devices of its groups at once, without stages.

        404 for an unknown bundle; 409 if it does not verify, or while a rollout of its name is under way.
        """
        known = await item(bundle_id)
        try:
            if registry is not None and (entry := await registry.entry(bundle_id)) is not None:
                await registry.verify(entry)
            await release(
                writing, known["name"], body.groups, time.time(), actor=caller_of(request).actor, current=bundle_id
            )
        except BundleError as error:
            raise Problem(409, "release-refused", str(error)) from None
        return await item(bundle_id)

    @router.post("/bundles/{bundle_id}/withdrawal", response_model=BundleItem, **needs(Scope.ROLLOUTS_WRITE, 404, 409))
    async def withdraw_bundle(request: Request, bundle_id: str) -> dict[str, Any]:
        """Take back the current bundle of a name, and return the one before it, which is current again.

        404 for an unknown bundle; 409 if it is not the current one, if none was before it, or while a rollout of its
        name is under way.
        """
        known = await item(bundle_id)
        if registry is None:
            raise Problem(409, "withdrawal-refused", "This process has no registry.")
        try:
            before = await registry.rollback(known["name"], actor=caller_of(request).actor, seen=bundle_id)
        except BundleError as error:
            raise Problem(409, "withdrawal-refused", str(error)) from None
        return await item(before.bundle_id)


def _item(bundle: ListedBundle) -> dict[str, Any]:
    facts: dict[str, Any] = with_rfc3339(asdict(bundle.entry))
    return facts | {"current": bundle.is_current, "groups": bundle.groups}
