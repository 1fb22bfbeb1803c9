"""Mutes: patterns of false alarms that are kept out of the inbox until a time.

A mute changes no verdict. It hides items that are built while it is active, and at its start the items of the last week
that nobody has decided. It ends by itself, and its hidden items stay on the tab Muted. A person who ends it earlier
brings the undecided ones back into the inbox, and can undo that.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, case, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.engine import Store
from cloud.store.labels import KeyReusedError, Label
from cloud.store.review.decisions import Decider
from cloud.store.review.mute_preview import DEFAULT_LIKENESS, MutePreview, pattern_of, preview_mute
from cloud.store.review.muting import MAX_MUTES, MuteScope, Pattern, pattern_of_row
from cloud.store.review.progress import raise_version
from cloud.store.schema import mutes, review_items, review_members
from shared.errors import DataError

DAY_S = 86_400.0
DEFAULT_DAYS, MAX_DAYS = 7.0, 90.0
_DAYS_ERROR_S = 0.001  # the difference of two times is rounded
KEPT_S = 90 * DAY_S  # after its end, where no item refers to it


@dataclass(frozen=True, slots=True)
class NewMute:
    """Mute to make of an item. `accepts_real`: make it even where it would have hidden items that were called real."""

    item: int
    scope: MuteScope
    likeness: float = DEFAULT_LIKENESS
    days: float = DEFAULT_DAYS
    note: str = ""
    accepts_real: bool = False


@dataclass(frozen=True, slots=True)
class StoredMute:
    """Mute in the store. `hidden_items` and `hidden_verdicts` count all that it has hidden."""

    number: int
    pattern: Pattern
    item: int
    note: str
    author: str
    at_s: float
    expires_at_s: float
    ended_at_s: float | None
    ended_by: str
    hidden_items: int
    hidden_verdicts: int

    def is_active(self, now_s: float) -> bool:
        """Return whether it hides anything now."""
        return self.ended_at_s is None and self.expires_at_s > now_s

    @property
    def end_s(self) -> float:
        """When it ends, or ended."""
        return self.expires_at_s if self.ended_at_s is None else min(self.ended_at_s, self.expires_at_s)


@dataclass(frozen=True, slots=True)
class HiddenCounts:
    """Items that a mute hid in the last day and week, and those of all of them that were called real."""

    day: int = 0
    week: int = 0
    real: int = 0


class TooManyMutesError(DataError):
    """A site that has as many active mutes as it may have."""


class HidesRealError(DataError):
    """A mute that would have hidden items that people called real."""

    def __init__(self, preview: MutePreview) -> None:
        count = len(preview.real)
        what = "1 item that was" if count == 1 else f"{count} items that were"
        super().__init__(f"This mute would have hidden {what} called real: look at them, then confirm or narrow it.")
        self.preview = preview


class UnknownMuteError(DataError):
    """A mute that is not in the store, or of other sites."""


class MuteEndedError(DataError):
    """A mute that has ended, or whose time is over."""


async def make_mute(store: Store, new: NewMute, by: Decider) -> StoredMute:
    """Store a mute, and hide the items of its preview that nobody has decided.

    A repeated request with the same key returns the first mute. Raises NoPatternError, HidesRealError,
    TooManyMutesError, KeyReusedError or StorageError, DataError for figures out of their bounds.
    """
    if not 0 < new.days <= MAX_DAYS:
        raise DataError(f"A mute ends after at most {MAX_DAYS:g} days: choose an earlier end.")
    async with store.reading() as connection:
        if (earlier := await _earlier(connection, new, by)) is not None:
            return earlier
        pattern = await pattern_of(connection, new.item, new.scope, new.likeness, by.sites)
        preview = await preview_mute(connection, pattern)
    if preview.real and not new.accepts_real:
        raise HidesRealError(preview)
    async with store.writing() as connection:
        if (earlier := await _earlier(connection, new, by)) is not None:
            return earlier
        now_s = time.time()
        active = select(func.count()).where(mutes.c.site == pattern.site, *_is_active(now_s))
        if (await connection.execute(active)).scalar_one() >= MAX_MUTES:
            raise TooManyMutesError(f"There are {MAX_MUTES} active mutes for this place already: end one first.")
        number = await _insert(connection, new, pattern, by, now_s)
        await _hide(connection, number, preview.left)
        details = {"scope": new.scope.value, "item": new.item, "days": new.days, "likeness": new.likeness}
        await audit.record(connection, by.actor, AuditAction.MUTE_MADE, _subject(number), **details)
        await raise_version(connection)
        return await _one(connection, number)


async def end_mute(store: Store, number: int, by: Decider) -> tuple[StoredMute, int]:
    """End a mute, and bring its undecided items back; return it and their count.

    Raises UnknownMuteError, MuteEndedError or StorageError.
    """
    async with store.writing() as connection:
        mute, now_s = await _own(connection, number, by.sites), time.time()
        if not mute.is_active(now_s):
            raise MuteEndedError(f"Mute {number} has ended already.")
        changed = {"ended_at_s": now_s, "ended_by": by.author}
        await connection.execute(update(mutes).where(mutes.c.number == number).values(changed))
        back = update(review_items).where(review_items.c.hidden_by == number, review_items.c.decision.is_(None))
        shown = (await connection.execute(back.values(hidden_by=None))).rowcount
        await audit.record(connection, by.actor, AuditAction.MUTE_ENDED, _subject(number), items_shown=shown)
        await raise_version(connection)
        return await _one(connection, number), shown


async def resume_mute(store: Store, number: int, by: Decider) -> tuple[StoredMute, int]:
    """Take back that a mute was ended; return it, and the count of items that are hidden again.

    Raises UnknownMuteError, MuteEndedError if its time is over, TooManyMutesError or StorageError.
    """
    async with store.writing() as connection:
        mute, now_s = await _own(connection, number, by.sites), time.time()
        if mute.expires_at_s <= now_s:
            raise MuteEndedError(f"The time of mute {number} is over: make a new one.")
        hidden = 0
        if mute.ended_at_s is not None:
            active = select(func.count()).where(mutes.c.site == mute.pattern.site, *_is_active(now_s))
            if (await connection.execute(active)).scalar_one() >= MAX_MUTES:
                raise TooManyMutesError(f"There are {MAX_MUTES} active mutes for this place already: end one first.")
            changed = {"ended_at_s": None, "ended_by": ""}
            await connection.execute(update(mutes).where(mutes.c.number == number).values(changed))
            again = update(review_items).where(review_items.c.muted_by == number, review_items.c.hidden_by.is_(None))
            again = again.where(review_items.c.decision.is_(None)).values(hidden_by=number)
            hidden = (await connection.execute(again)).rowcount
            await audit.record(connection, by.actor, AuditAction.MUTE_RESUMED, _subject(number), items_hidden=hidden)
            await raise_version(connection)
        return await _one(connection, number), hidden


async def mute_page(
    connection: AsyncConnection,
    *,
    is_active: bool | None = None,
    sites: Sequence[str] = (),
    before: int | None = None,
    size: int = 50,
    now_s: float | None = None,
) -> tuple[StoredMute, ...]:
    """Return the newest `size` mutes of these sites, or the next ones older than the number `before`."""
    now_s = time.time() if now_s is None else now_s
    query = select(mutes).order_by(mutes.c.number.desc()).limit(size)
    if is_active is not None:
        active = _is_active(now_s)
        query = query.where(*active) if is_active else query.where(~(active[0] & active[1]))
    if sites:
        query = query.where(mutes.c.site.in_(sites))
    if before is not None:
        query = query.where(mutes.c.number < before)
    return tuple(_stored(row) for row in (await connection.execute(query)).mappings())


async def mutes_by_number(connection: AsyncConnection, numbers: Sequence[int]) -> Mapping[int, StoredMute]:
    """Return these mutes by number."""
    rows = (await connection.execute(select(mutes).where(mutes.c.number.in_(numbers)))).mappings()
    return {row["number"]: _stored(row) for row in rows}


async def hidden_counts(
    connection: AsyncConnection, numbers: Sequence[int], now_s: float | None = None
) -> dict[int, HiddenCounts]:
    """Return what these mutes hid, by number."""
    now_s = time.time() if now_s is None else now_s
    items = review_items.c
    query = select(
        items.muted_by,
        *(func.sum(case((items.judged_at_s >= now_s - days * DAY_S, 1), else_=0)) for days in (1, 7)),
        func.sum(case((items.decision == Label.REAL.value, 1), else_=0)),
    )
    rows = await connection.execute(query.where(items.muted_by.in_(numbers)).group_by(items.muted_by))
    return {row[0]: HiddenCounts(*(int(count) for count in row[1:])) for row in rows}


async def has_active_mute(connection: AsyncConnection, now_s: float) -> bool:
    """Return whether any mute is active."""
    return (await connection.execute(select(mutes.c.number).where(*_is_active(now_s)).limit(1))).first() is not None


async def hidden_members(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, bool]:
    """Return whether each of these verdicts is in a hidden item, by number; without those that have no item yet."""
    joined = review_members.join(review_items, review_items.c.number == review_members.c.item)
    query = select(review_members.c.number, review_items.c.hidden_by).select_from(joined)
    rows = await connection.execute(query.where(review_members.c.number.in_(numbers)))
    return {row.number: row.hidden_by is not None for row in rows}


async def remove_old_mutes(store: Store, now_s: float | None = None) -> int:
    """Delete mutes that ended KEPT_S ago and hid no item that is left; return their number. Raises StorageError."""
    before_s = (time.time() if now_s is None else now_s) - KEPT_S
    refers = exists().where(review_items.c.muted_by == mutes.c.number)
    old = select(mutes.c.number).where(mutes.c.expires_at_s < before_s, ~refers).limit(1000)
    async with store.writing() as connection:
        return (await connection.execute(delete(mutes).where(mutes.c.number.in_(old)))).rowcount


async def _hide(connection: AsyncConnection, number: int, items: Sequence[int]) -> None:
    """Hide undecided items, and count them."""
    hiding = update(review_items).where(review_items.c.number.in_(items), review_items.c.decision.is_(None))
    hiding = hiding.where(review_items.c.hidden_by.is_(None)).values(muted_by=number, hidden_by=number)
    await connection.execute(hiding)
    counted = select(func.count(), func.coalesce(func.sum(review_items.c.verdicts), 0))
    row = (await connection.execute(counted.where(review_items.c.hidden_by == number))).one()
    values = {"hidden_items": int(row[0]), "hidden_verdicts": int(row[1])}
    await connection.execute(update(mutes).where(mutes.c.number == number).values(values))


async def _insert(connection: AsyncConnection, new: NewMute, pattern: Pattern, by: Decider, now_s: float) -> int:
    names = [name for name in Pattern.__dataclass_fields__ if name not in ("scope", "vector")]
    values: dict[str, Any] = {name: getattr(pattern, name) for name in names}
    values |= {"scope": pattern.scope.value, "vector": dict(pattern.vector), "item": new.item, "note": new.note}
    values |= {"author": by.author, "actor": by.actor, "client_key": by.client_key}
    values |= {"at_s": now_s, "expires_at_s": now_s + new.days * DAY_S}
    return int((await connection.execute(insert(mutes).values(values).returning(mutes.c.number))).scalar_one())


async def _earlier(connection: AsyncConnection, new: NewMute, by: Decider) -> StoredMute | None:
    """Return the mute of an earlier request with the same key."""
    if by.client_key is None:
        return None
    query = select(mutes).where(mutes.c.actor == by.actor, mutes.c.client_key == by.client_key)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    stored = (row["item"], row["scope"], row["likeness"], row["note"], row["author"])
    is_same = stored == (new.item, new.scope, new.likeness, new.note, by.author)
    if not is_same or abs(row["expires_at_s"] - row["at_s"] - new.days * DAY_S) > _DAYS_ERROR_S:
        raise KeyReusedError(f"Key {by.client_key!r} stored another mute before: use a new key for each.")
    return _stored(row)


async def _own(connection: AsyncConnection, number: int, sites: Sequence[str]) -> StoredMute:
    query = select(mutes).where(mutes.c.number == number)
    if sites:
        query = query.where(mutes.c.site.in_(sites))
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise UnknownMuteError(f"There is no mute {number}.")
    return _stored(row)


async def _one(connection: AsyncConnection, number: int) -> StoredMute:
    return _stored((await connection.execute(select(mutes).where(mutes.c.number == number))).mappings().one())


def _is_active(now_s: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return mutes.c.ended_at_s.is_(None), mutes.c.expires_at_s > now_s


def _subject(number: int) -> str:
    return f"mute {number}"


def _stored(row: RowMapping) -> StoredMute:
    names = [name for name in StoredMute.__dataclass_fields__ if name != "pattern"]
    return StoredMute(pattern=pattern_of_row(row), **{name: row[name] for name in names})
