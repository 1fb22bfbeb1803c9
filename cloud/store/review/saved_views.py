"""Named filters of the review page, of one person each."""

import time
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.schema import review_views
from cloud.store.upsert import upsert

MAX_VIEWS, MAX_NAME_CHARACTERS, MAX_QUERY_CHARACTERS = 50, 64, 1000


@dataclass(frozen=True, slots=True)
class SavedView:
    """Name of a view, and the filters in its address."""

    name: str
    query: str


async def saved_views(connection: AsyncConnection, actor: str) -> list[SavedView]:
    """Return the views of a person by name."""
    query = select(review_views.c.name, review_views.c.query).where(review_views.c.actor == actor)
    return [SavedView(*row) for row in await connection.execute(query.order_by(review_views.c.name))]


async def save_view(store: Store, actor: str, view: SavedView) -> bool:
    """Add or replace a view; return False if the person has MAX_VIEWS others. Raises StorageError."""
    async with store.writing() as connection:
        others = select(func.count()).where(review_views.c.actor == actor, review_views.c.name != view.name)
        if (await connection.execute(others)).scalar_one() >= MAX_VIEWS:
            return False
        row = {"actor": actor, "name": view.name, "query": view.query, "at_s": time.time()}
        await upsert(connection, review_views, [row])
    return True


async def remove_view(store: Store, actor: str, name: str) -> bool:
    """Remove a view; return False if there is none. Raises StorageError."""
    async with store.writing() as connection:
        of_person = delete(review_views).where(review_views.c.actor == actor, review_views.c.name == name)
        return (await connection.execute(of_person)).rowcount > 0
