"""Forecast of the settings of a group, for the HTTP API, the page and the history."""

import asyncio
from collections.abc import Collection
from typing import Any

from cloud.store import Store
from cloud.store.replay.kept import KeptWeeks
from cloud.store.replay.reading import read_week
from cloud.thresholds.figures import Expected, Forecast
from cloud.thresholds.forecast import forecast_of
from shared.errors import StorageError
from shared.group_settings import GroupSettings


async def read_forecast(
    store: Store,
    group: str,
    proposed: GroupSettings,
    now_s: float,
    sites: Collection[str] = (),
    kept_weeks: KeptWeeks | None = None,
) -> Forecast | None:
    """Return the forecast of settings for the devices of a group on these sites; None without a device."""
    async with store.reading() as connection:
        week = await read_week(connection, group, now_s, sites, kept_weeks)
    if week is None:
        return None
    return await asyncio.to_thread(forecast_of, week, proposed)


async def forecast_for_history(
    store: Store, group: str, settings: GroupSettings, now_s: float, kept_weeks: KeptWeeks | None = None
) -> dict[str, Any] | None:
    """Return what is expected of settings; None without a device, or if the store cannot be read now."""
    try:
        found = await read_forecast(store, group, settings, now_s, kept_weeks=kept_weeks)
    except StorageError:  # the change is more urgent than its forecast
        return None
    if found is None:
        return None
    figures = found.proposed.model_dump() | {"trust": found.trust}
    return Expected(**{name: figures[name] for name in Expected.model_fields}).model_dump(mode="json")
