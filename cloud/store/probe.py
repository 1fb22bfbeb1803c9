"""Attempt to write, to find out whether the store takes samples."""

import time

from sqlalchemy import insert, select

from cloud.store.engine import Store
from cloud.store.schema import EVENT_VERDICT, devices, events, samples
from shared.modality import Modality
from shared.samples import Route

_NAME = "probe"


async def try_write(store: Store) -> None:
    """Write into the tables of samples and events and undo it, then commit a transaction; raises StorageError."""
    async with store.writing() as connection:
        device_id = (await connection.execute(select(devices.c.device_id).limit(1))).scalar_one_or_none()
        undone = await connection.begin_nested()
        now_s = time.time()
        await connection.execute(insert(events).values(device_id=_NAME, kind=EVENT_VERDICT, created_at_s=now_s))
        if device_id is not None:
            await connection.execute(insert(samples).values(_sample(device_id, now_s)))
        await undone.rollback()
        # A value that nothing reads; without a change there would be nothing to commit.
        await connection.exec_driver_sql(f"PRAGMA user_version = {int(now_s) % 2**31}")


def _sample(device_id: str, now_s: float) -> dict[str, object]:
    texts = dict.fromkeys(("source_id", "origin", "edge_bundle_id", "calibration_id", "artefact"), "")
    numbers = {"edge_p_value": 1.0, "edge_extrapolated": False, "payload_bytes": 0}
    times = {"captured_at_s": now_s, "received_at_s": now_s}
    kinds = {"modality": Modality.TABULAR.value, "route": Route.AUDIT.value}
    return {"sample_id": _NAME.encode(), "device_id": device_id, **texts, **numbers, **times, **kinds}
