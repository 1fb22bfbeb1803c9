"""Sides on which the readings of verdicts leave their normal ranges, for the signatures of review items."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.standing import NormalRange, Side, normal_ranges
from cloud.store import Store
from cloud.store.contents import first_payloads
from cloud.store.review.grouping import Asking
from cloud.store.review.signature import Sides
from shared.errors import SampleRejected, StorageError
from shared.logs import EventLog, Throttle
from shared.modality import Modality
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

MAX_BYTES = 8 * 2**20  # of the payloads that are read at once
_SIGNS = {Side.ABOVE: "+", Side.BELOW: "-"}
_LOG = EventLog("evidence")
_throttle = Throttle()


class SideReader:
    """Reader of the sides of rows and windows; `shelf` has the normal ranges of their bundles."""

    def __init__(self, store: Store, shelf: BundleShelf) -> None:
        self._store, self._shelf = store, shelf

    async def __call__(self, asking: Sequence[Asking]) -> dict[int, Sides]:
        """Return the sides of these verdicts by number, without those whose payload or ranges cannot be read."""
        wanted = [item for item in asking if item.contributions]
        if not wanted:
            return {}
        try:
            payloads = await first_payloads(self._store, [item.number for item in wanted], MAX_BYTES)
        except StorageError as error:  # items without sides match no mute, and stay in the inbox
            if count := _throttle.allow("sides"):
                _LOG.warning("sides_not_read", error=error, count=count)
            return {}
        found, ranges = dict[int, Sides](), dict[str, dict[str, NormalRange]]()
        for item in wanted:
            facts, _ = await self._shelf.facts(item.bundle_id)
            if item.number in payloads and facts is not None:
                if item.bundle_id not in ranges:
                    ranges[item.bundle_id] = normal_ranges(facts.ranges)
                given = (payloads[item.number], Modality(item.modality), facts.spec.channels, ranges[item.bundle_id])
                if (sides := await asyncio.to_thread(_sides, *given)) is not None:
                    found[item.number] = sides
        return found


def sides_of(values: Values, channels: Sequence[str], ranges: Mapping[str, NormalRange]) -> Sides:
    """Return the sign of each channel of a row (features,) or window (length, channels) that leaves its range."""
    found = {}
    rows = np.atleast_2d(np.asarray(values, np.float64))
    for name, column in zip(channels, rows.T, strict=False):
        finite = column[np.isfinite(column)]
        if name not in ranges or not len(finite):
            continue
        normal = ranges[name]
        ends = (float(finite.max()), float(finite.min()))
        farthest = max(ends, key=normal.deviations)
        if (sign := _SIGNS.get(normal.side(farthest))) is not None:
            found[name] = sign
    return found


def _sides(
    payload: sample_pb2.Payload, modality: Modality, channels: Sequence[str], ranges: Mapping[str, NormalRange]
) -> Sides | None:
    """Return the sides of a payload; None if it cannot be decoded. Blocking."""
    try:
        return sides_of(decode_payload(payload, modality), channels, ranges)
    except SampleRejected:
        return None
