"""Restriction of queries to the devices of some sites; no site restricts nothing."""

import uuid
from collections.abc import Collection

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.sample_keys import is_sample
from cloud.store.schema import devices, samples


def of_sites(sites: Collection[str]) -> list[ColumnElement[bool]]:
    """Return the conditions on rows of `devices`."""
    return [devices.c.site.in_(sites)] if sites else []


def by_sites(device_id: ColumnElement[str], sites: Collection[str]) -> list[ColumnElement[bool]]:
    """Return the conditions on rows of another table, whose column `device_id` names a device."""
    return [device_id.in_(ids_of_sites(sites))] if sites else []


def ids_of_sites(sites: Collection[str]) -> Select[tuple[str]]:
    """Return the query of the ids of devices of these sites, also of those that were removed."""
    return select(devices.c.device_id).where(devices.c.site.in_(sites))


async def site_of_sample(connection: AsyncConnection, sample_id: uuid.UUID) -> str | None:
    """Return the site of the device of a sample, None for a sample that is not stored as a row."""
    query = select(devices.c.site).join(samples, samples.c.device_id == devices.c.device_id)
    return (await connection.execute(query.where(is_sample(connection, sample_id.bytes)))).scalar_one_or_none()


async def site_of_device(connection: AsyncConnection, device_id: str) -> str | None:
    """Return the site of a device, None for an unknown one."""
    query = select(devices.c.site).where(devices.c.device_id == device_id)
    return (await connection.execute(query)).scalar_one_or_none()
