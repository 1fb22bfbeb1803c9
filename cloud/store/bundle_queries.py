"""Read-only queries on bundles, for lists."""

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.registry import RegisteredBundle, current_bundles
from cloud.store.releases import groups_by_name
from cloud.store.schema import bundles

_COLUMNS = tuple(bundles.c[field.name] for field in fields(RegisteredBundle))


@dataclass(frozen=True, slots=True)
class ListedBundle:
    """Bundle of the registry; `groups` of devices get its name, None for all of them."""

    entry: RegisteredBundle
    is_current: bool
    groups: tuple[str, ...] | None


async def bundle_page(
    connection: AsyncConnection,
    *,
    name: str = "",
    after: tuple[str, int] | None = None,
    size: int = 50,
    newest_first: bool = False,
) -> list[ListedBundle]:
    """Return the first `size` bundles by name and version, or the next ones after a name and version.

    `newest_first`: by name, and of each name the newest version first; without `after`.
    """
    version = bundles.c.version.desc() if newest_first else bundles.c.version
    query = select(*_COLUMNS).order_by(bundles.c.name, version).limit(size)
    if name:
        query = query.where(bundles.c.name == name)
    if after is not None:
        query = query.where(tuple_(bundles.c.name, bundles.c.version) > tuple_(*after))
    entries = [RegisteredBundle(**row._mapping) for row in await connection.execute(query)]
    return await _listed(connection, entries)


async def one_bundle(connection: AsyncConnection, bundle_id: str) -> tuple[ListedBundle, dict[str, Any]] | None:
    """Return a bundle and its manifest, or None."""
    query = select(*_COLUMNS, bundles.c.manifest).where(bundles.c.bundle_id == bundle_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    values = dict(row)
    manifest = values.pop("manifest")
    (listed,) = await _listed(connection, [RegisteredBundle(**values)])
    return listed, manifest


async def _listed(connection: AsyncConnection, entries: list[RegisteredBundle]) -> list[ListedBundle]:
    current = {entry.bundle_id for entry in await current_bundles(connection)}
    groups = await groups_by_name(connection)
    return [
        ListedBundle(
            entry, entry.bundle_id in current, tuple(sorted(groups[entry.name])) if entry.name in groups else None
        )
        for entry in entries
    ]
