"""What is inside a stored sample, decoded for display."""

import uuid
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cloud.console.pictures import in_place
from cloud.modalities import View, cloud_modality
from cloud.store import Store
from cloud.store.queries import StoredMap, StoredPayload, stored_map, stored_payload
from shared.errors import SampleRejected
from shared.samples import Values
from shared.wire import decode_crop, decode_payload


@dataclass(frozen=True, slots=True)
class Contents:
    """A sample's payload, its decoded values and both maps; `problem` says why there are no values, or not all."""

    payload: StoredPayload | None
    values: Values | None
    cloud_map: NDArray[np.uint8] | None
    problem: str = ""

    @property
    def view(self) -> View | None:
        """How the console shows the sample; None without a payload."""
        return cloud_modality(self.payload.modality).view if self.payload is not None else None

    @property
    def edge_map(self) -> NDArray[np.uint8] | None:
        """The coarse map the device sent."""
        stored = self.payload.edge_map if self.payload is not None else None
        return _cells(stored) if stored is not None else None


async def read_contents(store: Store, sample_id: uuid.UUID) -> tuple[StoredPayload | None, StoredMap | None]:
    """The payload and the cloud's map as they are stored."""
    async with store.reading() as connection:
        return await stored_payload(connection, sample_id), await stored_map(connection, sample_id)


def decode_contents(payload: StoredPayload | None, cloud_map: StoredMap | None) -> Contents:
    """Decode what was read. It takes a while for large images: call it off the event loop."""
    cells = _cells(cloud_map) if cloud_map is not None else None
    if payload is None:
        return Contents(None, None, cells, "The payload is gone: its retention has ended (retention.payloads_days).")
    try:
        values, part = decode_payload(payload.message, payload.modality), decode_crop(payload.message)
    except SampleRejected as error:
        return Contents(payload, None, cells, f"The payload cannot be shown: {error}.")
    if part is None:
        return Contents(payload, values, cells)
    what = "a part" if part.region is not None else "a preview"
    problem = f"Of {part.width} x {part.height} pixels only {what} travelled: the budget or the link was too narrow."
    return Contents(payload, in_place(cast(NDArray[np.uint8], values), part), cells, problem)


def _cells(stored: StoredMap) -> NDArray[np.uint8]:
    return np.frombuffer(stored.cells, np.uint8).reshape(stored.height, stored.width)
