"""Verdicts that ask for a person, read in the order of their judgement."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.contents import StoredMap, load_maps
from cloud.store.engine import Store
from cloud.store.review.grouping import Asking, Place, moment_of
from cloud.store.review.severity import severity_of
from cloud.store.review.signature import Sides, Signature, bundle_name, map_vector, share_vector
from cloud.store.schema import review_members, samples, verdicts
from cloud.store.verdict_columns import contributions_from_json
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.store.verdict_ranges import Span, find_keys
from shared.samples import Decision, Route, p_value_from_column

MAPS_AT_ONCE = 16  # of up to 1 MiB
SidesOf: TypeAlias = Callable[[Sequence[Asking]], Awaitable[Mapping[int, Sides]]]
"""Reads on which sides the contributions of verdicts leave their normal ranges, by number; without unknown ones."""
_COLUMNS = (
    verdicts.c.number,
    verdicts.c.device_id,
    verdicts.c.source_id,
    verdicts.c.modality,
    verdicts.c.route,
    verdicts.c.decision,
    verdicts.c.p_value,
    verdicts.c.judged_at_s,
    verdicts.c.bundle_id,
    verdicts.c.contributions,
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
    """Return those of these verdicts that are in no item yet, in the same order, without signatures."""
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


async def with_signatures(
    store: Store,
    asking: Sequence[Asking],
    *,
    with_place: Collection[str] = (),
    with_map: Collection[str] = (),
    sides_of: SidesOf | None = None,
) -> list[Asking]:
    """Return the verdicts with their signatures.

    Those of the modalities `with_map` and `with_place` are signed by their anomaly maps, and have no signature without
    one; those `with_place` also get the place of the map's largest value. Raises StorageError.
    """
    seen = {*with_place, *with_map}
    numbers = [item.number for item in asking if item.modality in seen]
    maps = dict[int, NDArray[np.uint8]]()
    for start in range(0, len(numbers), MAPS_AT_ONCE):
        found = await load_maps(store, numbers[start : start + MAPS_AT_ONCE])
        maps |= {number: _cells(stored) for number, stored in found.items()}
    sides = await sides_of([item for item in asking if item.modality not in seen]) if sides_of is not None else {}
    signed = []
    for item in asking:
        cells = maps.get(item.number)
        place = _place(cells) if cells is not None and item.modality in with_place else None
        vector = map_vector(cells) if cells is not None else None
        if item.modality not in seen:
            vector = share_vector(item.contributions, sides.get(item.number))
        name = bundle_name(item.bundle_id)
        signature = Signature(name, item.modality, vector) if vector is not None and name else None
        signed.append(replace(item, place=place, signature=signature))
    return signed


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
        bundle_id=values["bundle_id"],
        contributions=contributions_from_json(values["contributions"]),
    )


def _finite(p_value: float) -> float:
    return p_value if 0.0 <= p_value <= 1.0 else 1.0


def _cells(stored: StoredMap) -> NDArray[np.uint8]:
    return np.frombuffer(stored.cells, np.uint8).reshape(stored.height, stored.width)


def _place(cells: NDArray[np.uint8]) -> Place:
    """Return the place of the largest value in an anomaly map (height, width)."""
    height, width = cells.shape
    row, column = divmod(int(cells.argmax()), width)
    return (row + 0.5) / height, (column + 0.5) / width
