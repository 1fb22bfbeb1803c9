"""Routes of bundles."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from cloud.moments import with_rfc3339
from cloud.rest.access import needs
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor
from cloud.rest.problems import not_found
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.bundle_queries import ListedBundle, bundle_page, one_bundle


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


class BundlePage(BaseModel):
    """Page of bundles by name and version; `next` is null on the last page."""

    items: list[BundleItem]
    next: str | None


def bundle_routes(store: Store) -> APIRouter:
    """Return the routes of bundles."""
    router = APIRouter(tags=["bundles"])

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


def _item(bundle: ListedBundle) -> dict[str, Any]:
    facts: dict[str, Any] = with_rfc3339(asdict(bundle.entry))
    return facts | {"current": bundle.is_current, "groups": bundle.groups}
