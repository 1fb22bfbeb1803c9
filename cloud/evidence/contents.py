"""Contents of a stored sample, decoded for display."""

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.pictures import in_place
from cloud.modalities import View, cloud_modality
from cloud.store import Store
from cloud.store.contents import StoredMap, StoredPayload, stored_map, stored_payload
from shared.errors import SampleRejected
from shared.samples import Values
from shared.wire import decode_crop, decode_payload

UNREACHABLE = "Payload and maps cannot be read now: the log of the service has the reason. Reload the page later."


@dataclass(frozen=True, slots=True)
class Contents:
    """Payload of a sample, its decoded values and both maps; `problem` explains missing values."""

    payload: StoredPayload | None
    values: Values | None
    cloud_map: NDArray[np.uint8] | None
    problem: str = ""

    @property
    def view(self) -> View | None:
        """View of the sample in the console; None without a payload."""
        return cloud_modality(self.payload.modality).view if self.payload is not None else None

    @property
    def edge_map(self) -> NDArray[np.uint8] | None:
        """Coarse map that the device sent."""
        stored = self.payload.edge_map if self.payload is not None else None
        return cells_of(stored) if stored is not None else None


async def read_contents(store: Store, sample_id: uuid.UUID) -> tuple[StoredPayload | None, StoredMap | None]:
    """Return the payload and the cloud's map as stored; raises StorageError if they cannot be read now."""
    return await stored_payload(store, sample_id), await stored_map(store, sample_id)


def decode_contents(payload: StoredPayload | None, cloud_map: StoredMap | None) -> Contents:
    """Decode stored contents. Blocking: call it outside the event loop."""
    cells = cells_of(cloud_map) if cloud_map is not None else None
    if payload is None:
        return Contents(None, None, cells, "The payload has expired (retention.payloads_days).")
    if payload.loss:
        what = "is no longer there" if payload.is_gone else "is kept, but not shown"
        return Contents(payload, None, cells, f"The payload {what}: {payload.loss}.")
    try:
        values, crop = decode_payload(payload.message, payload.modality), decode_crop(payload.message)
    except SampleRejected as error:
        return Contents(payload, None, cells, f"The payload cannot be shown: {error}.")
    if crop is None or cloud_modality(payload.modality).view is not View.PICTURE:
        return Contents(payload, values, cells)
    form = "a crop" if crop.region is not None else "a preview"
    problem = f"Only {form} of the {crop.width} x {crop.height} pixels was sent: budget or link did not allow more."
    return Contents(payload, in_place(values.astype(np.uint8, copy=False), crop), cells, problem)


def cells_of(stored: StoredMap) -> NDArray[np.uint8]:
    """Return the cells (height, width) of a stored map."""
    return np.frombuffer(stored.cells, np.uint8).reshape(stored.height, stored.width)
