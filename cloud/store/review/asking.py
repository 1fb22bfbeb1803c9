"""Verdicts that ask for a person, read in the order of their judgement."""

import uuid
from collections.abc import Collection

import numpy as np
from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.queries import stored_map
from cloud.store.review.grouping import Asking, Place, moment_of
from cloud.store.review.severity import severity_of
from cloud.store.schema import review_members, samples, verdicts
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.store.verdict_ranges import Span, find_keys
from shared.samples import Decision, Route, p_value_from_column

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
    samples.c.sample_id,
)


async def asking_keys(connection: AsyncConnection, after: VerdictKey, size: int) -> list[VerdictKey]:
    """Return the keys of the next verdicts that ask for a person, in the order of their judgement."""
    keys: list[VerdictKey] = []
    for decision in (Decision.ANOMALOUS, Decision.UNDECIDED):
        span = Span(after=after, is_ascending=True)
        keys += (await find_keys(connection, VerdictFilter(decision=decision), span, size)).keys
    return sorted(keys, key=lambda key: (key.judged_at_s, key.number))[:size]


async def without_item(
    connection: AsyncConnection, keys: list[VerdictKey], with_place: Collection[str]
) -> list[Asking]:
    """Return those of these verdicts that are in no item yet, in the same order; see `build_items` on places."""
    numbers = [key.number for key in keys]
    known = select(review_members.c.number).where(review_members.c.number.in_(numbers))
    missing = set(numbers) - set((await connection.execute(known)).scalars())
    if not missing:
        return []
    query = select(*_COLUMNS).join(samples, samples.c.number == verdicts.c.number)
    rows = (await connection.execute(query.where(verdicts.c.number.in_(missing)))).mappings()
    found = {row["number"]: row for row in rows}
    asking = [await _asking(connection, found[key.number], with_place) for key in keys if key.number in found]
    return [item for item in asking if item is not None]


async def _asking(connection: AsyncConnection, values: RowMapping, with_place: Collection[str]) -> Asking | None:
    p_value = p_value_from_column(values["p_value"])
    severity = severity_of(Decision(values["decision"]), Route(values["route"]), p_value)
    if severity is None:
        return None
    has_place = values["modality"] in with_place
    return Asking(
        number=values["number"],
        device_id=values["device_id"],
        source_id=values["source_id"],
        modality=values["modality"],
        severity=severity,
        at_s=moment_of(values["captured_at_s"], values["received_at_s"]),
        judged_at_s=values["judged_at_s"],
        p_value=_finite(values["edge_p_value"]) if p_value is None else p_value,
        place=await _place(connection, uuid.UUID(bytes=values["sample_id"])) if has_place else None,
    )


def _finite(p_value: float) -> float:
    return p_value if 0.0 <= p_value <= 1.0 else 1.0


async def _place(connection: AsyncConnection, sample_id: uuid.UUID) -> Place | None:
    """Return the place of the largest value in the anomaly map of a sample; None without a map."""
    stored = await stored_map(connection, sample_id)
    if stored is None:
        return None
    peak = int(np.frombuffer(stored.cells, np.uint8).argmax())
    row, column = divmod(peak, stored.width)
    return (row + 0.5) / stored.height, (column + 0.5) / stored.width
