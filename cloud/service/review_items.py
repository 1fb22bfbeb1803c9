"""Review items follow the verdicts while this process leads."""

import asyncio
from collections.abc import Callable

from cloud.modalities import View, cloud_modality
from cloud.store import Store
from cloud.store.review.asking import SidesOf
from cloud.store.review.builder import build_items
from cloud.store.review.muting import MuteReader
from shared.errors import StorageError
from shared.logs import EventLog
from shared.modality import Modality

FOLLOW_EVERY_S = 1.0
_LOG = EventLog("review")


async def run_review_items(
    store: Store, on_failure: Callable[[Exception], None], sides_of: SidesOf | None = None
) -> None:
    """Put new verdicts into review items after each change of the store, until cancelled.

    A mute that another process made acts in the next run. `sides_of` gives the signatures of readings their signs.
    """
    seen: int | None = None
    with_place = [modality.value for modality in Modality if cloud_modality(modality).view is View.PICTURE]
    with_map = [modality.value for modality in Modality if cloud_modality(modality).view is View.CLIP]
    mute_reader = MuteReader()
    while True:
        try:
            if (version := store.version()) != seen:
                counts = await build_items(
                    store, with_place, with_map=with_map, sides_of=sides_of, mute_reader=mute_reader
                )
                seen = version
                if counts.verdicts:
                    _LOG.debug("review_items_built", verdicts=counts.verdicts, new=counts.items, hidden=counts.hidden)
        except StorageError as error:
            on_failure(error)
        await asyncio.sleep(FOLLOW_EVERY_S)
