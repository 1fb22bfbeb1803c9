"""Preview of a mute: which items of the last week it would have hidden, and which of them people called real.

An item is compared by its oddest verdict, whose signature is stored with it; a preview reads no map and no payload.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.labels import IS_CURRENT, WITH_CLASS, Label
from cloud.store.review.muting import MuteScope, Pattern
from cloud.store.review.signature import likeness
from cloud.store.schema import devices, labels, review_items, review_members, review_signatures
from cloud.store.sites import by_sites
from shared.errors import DataError

PREVIEW_S = 7 * 86_400.0
MAX_COMPARED = 2000  # newest items of the scope
LEAST_LIKENESS, DEFAULT_LIKENESS = 0.7, 0.9


class NoPatternError(DataError):
    """An item that gives no pattern: it expired, nobody called it a false alarm, or nothing shows what deviates."""

    def __init__(self, reason: str, *, is_unknown: bool = False) -> None:
        super().__init__(reason)
        self.is_unknown = is_unknown


@dataclass(frozen=True, slots=True)
class MutePreview:
    """Items that a mute would have hidden, by number, the newest first.

    `items`: all items of the scope in the last week, at most MAX_COMPARED (`is_cut`: there are more). `compared`: those
    that have a signature. `real`: hidden ones that a person called real or missed. `left`: hidden ones that nobody has
    decided.
    """

    since_s: float
    items: int
    compared: int
    hidden: tuple[int, ...]
    real: tuple[int, ...]
    left: tuple[int, ...]
    is_cut: bool


async def pattern_of(
    connection: AsyncConnection,
    item: int,
    scope: MuteScope,
    limit: float = DEFAULT_LIKENESS,
    sites: Sequence[str] = (),
    *,
    needs_decision: bool = True,
) -> Pattern:
    """Return the pattern of an item that was called a false alarm; raises NoPatternError."""
    items = review_items.c
    query = (
        select(review_items, devices.c.site, *(review_signatures.c[name] for name in _SIGNATURE))
        .join(devices, devices.c.device_id == items.device_id)
        .outerjoin(review_signatures, review_signatures.c.item == items.number)
        .where(items.number == item, *by_sites(items.device_id, sites))
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NoPatternError(f"There is no review item {item}: it may have expired.", is_unknown=True)
    if needs_decision and row["decision"] != Label.FALSE_ALARM.value:
        raise NoPatternError("Only the pattern of a false alarm can be muted: decide the item first.")
    if row["vector"] is None:
        raise NoPatternError(
            "This item has no pattern: no map or contributions of its oddest verdict show what deviates, or it is "
            "older than this version of the service."
        )
    if scope is MuteScope.BUNDLE and sites:
        raise NoPatternError("This account is for single sites: choose a source, a device or a site.")
    return Pattern(
        scope=scope,
        site="" if scope is MuteScope.BUNDLE else row["site"],
        device_id=row["device_id"] if scope in (MuteScope.SOURCE, MuteScope.DEVICE) else "",
        source_id=row["source_id"] if scope is MuteScope.SOURCE else "",
        modality=row["modality"],
        likeness=limit,
        p_value=row["p_value"],
        **{name: row[name] for name in _SIGNATURE},
    )


async def preview_mute(connection: AsyncConnection, pattern: Pattern, now_s: float | None = None) -> MutePreview:
    """Return what a mute of this pattern would have hidden of the items of the last week."""
    now_s = time.time() if now_s is None else now_s
    items, since_s = review_items.c, now_s - PREVIEW_S
    query = (
        select(items.number, items.modality, items.p_value, items.decision, items.hidden_by)
        .add_columns(*(review_signatures.c[name] for name in _SIGNATURE))
        .outerjoin(review_signatures, review_signatures.c.item == items.number)
        .where(items.first_at_s >= since_s)
        .order_by(items.number.desc())
        .limit(MAX_COMPARED + 1)
    )
    if pattern.device_id:
        query = query.where(items.device_id == pattern.device_id)
    if pattern.source_id:
        query = query.where(items.source_id == pattern.source_id)
    if pattern.site:
        query = query.where(*by_sites(items.device_id, [pattern.site]))
    rows = (await connection.execute(query)).mappings().all()
    shown = rows[:MAX_COMPARED]
    hidden = [row for row in shown if _fits(pattern, row)]
    numbers = [row["number"] for row in hidden]
    return MutePreview(
        since_s=since_s,
        items=len(shown),
        compared=sum(row["vector"] is not None for row in shown),
        hidden=tuple(numbers),
        real=await _real(connection, numbers),
        left=tuple(row["number"] for row in hidden if row["decision"] is None and row["hidden_by"] is None),
        is_cut=len(rows) > MAX_COMPARED,
    )


def at_scope(pattern: Pattern, scope: MuteScope) -> Pattern:
    """Return the pattern of an item's source in a larger scope; only of a pattern of the scope SOURCE."""
    return replace(
        pattern,
        scope=scope,
        site="" if scope is MuteScope.BUNDLE else pattern.site,
        device_id=pattern.device_id if scope in (MuteScope.SOURCE, MuteScope.DEVICE) else "",
        source_id=pattern.source_id if scope is MuteScope.SOURCE else "",
    )


_SIGNATURE = ("bundle_name", "version", "vector")


def _fits(pattern: Pattern, row: RowMapping) -> bool:
    same_kind = all(row[name] == getattr(pattern, name) for name in _KIND)
    if row["vector"] is None or not same_kind or row["p_value"] < pattern.lowest_p_value():
        return False
    return likeness(row["vector"], pattern.vector) >= pattern.likeness - 1e-6


_KIND = ("bundle_name", "modality", "version")


async def _real(connection: AsyncConnection, items: Sequence[int]) -> tuple[int, ...]:
    """Return those of these items that were decided real, or have a sample whose newest label is real or missed."""
    if not items:
        return ()
    decided = select(review_items.c.number).where(
        review_items.c.number.in_(items), review_items.c.decision == Label.REAL.value
    )
    joined = review_members.join(labels, labels.c.sample_number == review_members.c.number)
    labelled = select(review_members.c.item).select_from(joined).where(review_members.c.item.in_(items), IS_CURRENT)
    labelled = labelled.where(labels.c.label.in_([label.value for label in WITH_CLASS])).distinct()
    found = {*(await connection.execute(decided)).scalars(), *(await connection.execute(labelled)).scalars()}
    return tuple(sorted(found, reverse=True))
