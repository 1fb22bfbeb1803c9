"""Check of a request of an account that is restricted to sites: is its answer about them alone?"""

import uuid
from urllib.parse import parse_qs

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import Scope

from cloud.accounts.access_table import RouteAccess, SiteRule
from cloud.accounts.identity import SignedIn
from cloud.store import Store
from cloud.store.sites import site_of_device, site_of_sample


async def outside_sites(
    store: Store, scope: Scope, person: SignedIn, entry: RouteAccess, parameters: dict[str, str]
) -> str:
    """Return why a request is refused to a person with sites, or an empty text.

    A sample or device that does not exist is refused like one of another site, so that nothing shows which ones exist.
    """
    named = parse_qs(scope["query_string"].decode("latin-1")).get("device", [])
    if entry.sites is SiteRule.ANY or (entry.sites is SiteRule.SCOPED and not named):
        return ""
    shown = ", ".join(person.sites)
    if entry.sites is SiteRule.REFUSED:
        return f"This is about all sites, and this account is for {shown}."
    async with store.reading() as connection:
        if entry.sites is SiteRule.SAMPLE:
            site = await _site_of_sample(connection, parameters["sample_id"])
        else:
            names = [parameters["device_id"]] if entry.sites is SiteRule.DEVICE else named
            site = await _site_of_device(connection, names)
    return "" if site in person.sites else f"This account is for {shown}: this is not of them."


async def _site_of_sample(connection: AsyncConnection, text: str) -> str | None:
    try:
        sample_id = uuid.UUID(text)
    except ValueError:
        return None
    return await site_of_sample(connection, sample_id)


async def _site_of_device(connection: AsyncConnection, names: list[str]) -> str | None:
    if len(names) != 1 or "\0" in names[0]:
        return None
    return await site_of_device(connection, names[0])
