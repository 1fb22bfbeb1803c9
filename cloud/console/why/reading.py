"""Reading and decoding of one verdict for the detail view."""

import asyncio
import uuid
from collections.abc import Collection
from typing import Any

from cloud.console.views import detail_view
from cloud.console.why.contents import decode_contents
from cloud.store import Store
from cloud.store.queries import is_waiting, judged_sample, stored_map, stored_payload
from cloud.store.sites import site_of_sample

WAITING = "There is no verdict on this sample yet. It appears here automatically."


async def read_detail(
    store: Store, sample_id: uuid.UUID, sites: Collection[str] = ()
) -> tuple[dict[str, Any] | None, str]:
    """Return the view of one verdict and "", or None and the reason; raises StorageError.

    With `sites` a sample of another site is unknown.
    """
    async with store.reading() as connection:
        if sites and await site_of_sample(connection, sample_id) not in sites:
            return None, f"There is no sample {sample_id}; it may have expired."
        sample = await judged_sample(connection, sample_id)
        if sample is None:
            waits = await is_waiting(connection, sample_id)
            return None, WAITING if waits else f"There is no sample {sample_id}; it may have expired."
        stored = await stored_payload(connection, sample_id), await stored_map(connection, sample_id)
    return await asyncio.to_thread(lambda: detail_view(sample, decode_contents(*stored))), ""
