"""Part of the service that deletes the data of removed devices; it goes on where a killed process stopped."""

import asyncio
from collections.abc import Callable

from cloud.store import Store
from cloud.store.removal import delete_data, removals
from shared.errors import StorageError

CHECK_EVERY_S = 5.0


async def run_removals(store: Store, on_failure: Callable[[Exception], None]) -> None:
    """Delete the data of removed devices until cancelled."""
    while True:
        try:
            for removal in await removals(store):
                await delete_data(store, removal, service_runs=True)
        except StorageError as error:
            on_failure(error)
        await asyncio.sleep(CHECK_EVERY_S)
