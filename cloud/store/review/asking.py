"""Verdicts that ask for a person, read in the order of their judgement."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.contents import StoredMap, load_maps
from cloud.store.engine import Store
from cloud.store.review.grouping import Asking, Place, moment_of
from cloud.store.review.severity import severity_of
from cloud.store.schema import review_members, samples, verdicts
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.store.verdict_ranges import Span, find_keys
from shared.samples import Decision, Route, p_value_from_column

MAPS_AT_ONCE = 16  # of up to 1 MiB
_COLUMNS = (
    verdicts.c.number,
    verdicts.c.device_id,
    verdicts.c.source_id,
    verdicts.c.modality,
    verdicts.c.route,
    verdicts.c.decision,
    verdicts.c.p_value,
    verdicts.c.judged_at_s,
    samples.c.edge_p_value,
    samples.c.captured_at_s,
    samples.c.received_at_s,
    samples.c.origin,
)


async def asking_keys(connection: AsyncConnection, after: VerdictKey, size: int) -> list[VerdictKey]:
    """Return the keys of the next verdicts that ask for a person, in the order of their judgement."""
    keys: list[VerdictKey] = []
    for decision in (Decision.ANOMALOUS, Decision.UNDECIDED):
        span = Span(after=after, is_ascending=True)
        keys += (await find_keys(connection, VerdictFilter(decision=decision), span, size)).keys
    return sorted(keys, key=lambda key: (key.judged_at_s, key.number))[:size]


async def without_item(connection: AsyncConnection, keys: list[VerdictKey]) -> list[Asking]:
    """Return those of these verdicts that are in no item yet, in the same order, without places."""
    numbers = [key.number for key in keys]
    known = select(review_members.c.number).where(review_members.c.number.in_(numbers))
    missing = set(numbers) - set((await connection.execute(known)).scalars())
    if not missing:
        return []
    query = select(*_COLUMNS).join(samples, samples.c.number == verdicts.c.number)
    rows = (await connection.execute(query.where(verdicts.c.number.in_(missing)))).mappings()
    found = {row["number"]: row for row in rows}
    asking = [_asking(found[key.number]) for key in keys if key.number in found]
    return [item for item in asking if item is not None]


async def with_places(store: Store, asking: Sequence[Asking], modalities: Collection[str]) -> list[Asking]:
    """Return the verdicts, those of these modalities with the place of their map's largest value if they have a map.

    Raises StorageError.
    """
    numbers = [item.number for item in asking if item.modality in modalities]
    places = dict[int, Place]()
    for start in range(0, len(numbers), MAPS_AT_ONCE):
        maps = await load_maps(store, numbers[start : start + MAPS_AT_ONCE])
        places |= {number: _place(stored) for number, stored in maps.items()}
    return [replace(item, place=places.get(item.number)) for item in asking]


def _asking(values: RowMapping) -> Asking | None:
    p_value = p_value_from_column(values["p_value"])
    severity = severity_of(Decision(values["decision"]), Route(values["route"]), p_value)
    if severity is None:
        return None
    return Asking(
        number=values["number"],
        device_id=values["device_id"],
        source_id=values["source_id"],
        modality=values["modality"],
        severity=severity,
        at_s=moment_of(values["captured_at_s"], values["received_at_s"]),
        judged_at_s=values["judged_at_s"],
        p_value=_finite(values["edge_p_value"]) if p_value is None else p_value,
        origin=values["origin"],
    )


def _finite(p_value: float) -> float:
    return p_value if 0.0 <= p_value <= 1.0 else 1.0


def _place(stored: StoredMap) -> Place:
    """Return the place of the largest value in an anomaly map."""
    peak = int(np.frombuffer(stored.cells, np.uint8).argmax())
    row, column = divmod(peak, stored.width)
    return (row + 0.5) / stored.height, (column + 0.5) / stored.width
