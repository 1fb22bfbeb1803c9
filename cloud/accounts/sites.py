"""Check of a request of an account that is restricted to sites: is its answer about them alone?"""

import uuid
from typing import Any
from urllib.parse import parse_qs

from sqlalchemy import Select, select
from starlette.types import Scope

from cloud.accounts.access_table import RouteAccess, SiteRule
from cloud.accounts.identity import SignedIn
from cloud.store import Store
from cloud.store.schema import devices, samples


async def outside_sites(
    store: Store, scope: Scope, person: SignedIn, entry: RouteAccess, parameters: dict[str, str]
) -> str:
    """Return why a request is refused to a person with sites, or an empty text.

    A sample or device that does not exist is refused like one of another site, so that nothing shows which ones exist.
    """
    if entry.sites is SiteRule.ANY:
        return ""
    shown = ", ".join(person.sites)
    if entry.sites is SiteRule.REFUSED:
        return f"This is about all sites, and this account is for {shown}."
    if entry.sites is SiteRule.SAMPLE:
        query = _site_of_sample(parameters["sample_id"])
    elif entry.sites is SiteRule.DEVICE:
        query = _site_of_device([parameters["device_id"]])
    else:
        query = _site_of_device(parse_qs(scope["query_string"].decode("latin-1")).get("device", []))
    if query is not None:
        async with store.reading() as connection:
            if (await connection.execute(query)).scalar_one_or_none() in person.sites:
                return ""
    what = "name one of its devices in 'device'" if entry.sites is SiteRule.QUERY else "this is not of them"
    return f"This account is for {shown}: {what}."


def _site_of_sample(text: str) -> Select[Any] | None:
    try:
        sample_id = uuid.UUID(text)
    except ValueError:
        return None
    joined = select(devices.c.site).join(samples, samples.c.device_id == devices.c.device_id)
    return joined.where(samples.c.sample_id == sample_id.bytes)


def _site_of_device(names: list[str]) -> Select[Any] | None:
    if len(names) != 1 or "\0" in names[0]:
        return None
    return select(devices.c.site).where(devices.c.device_id == names[0])
