"""Anomalies that people report as missed by the edge: of a stored sample, or of a time of a source that sent nothing.

A report is not a random accepted sample, so it never enters the bound that the audits give. A report
of a sample also labels it missed. Withdrawn reports stay, and do not count.
"""

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.audit import AuditAction
from cloud.store.defect_classes import find_class, folded, with_class_name
from cloud.store.engine import Store
from cloud.store.labels import KeyReusedError, Label, NewLabel, write_label
from cloud.store.review.decisions import Decider
from cloud.store.review.progress import raise_version
from cloud.store.sample_keys import is_sample
from cloud.store.schema import devices, labels, missed_reports, samples
from cloud.store.sites import by_sites
from shared.errors import DataError

MAX_SPAN_S = 7 * 86_400.0
MAX_AHEAD_S = 3600.0  # that a report may end in the future, by the clock of its author
MAX_REPORTS = 10_000  # of one device
MAX_SOURCE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class NewReport:
    """Miss to report: of a stored sample, or of a time span of a device's source."""

    sample_id: uuid.UUID | None = None
    device_id: str = ""
    source_id: str = ""
    begin_s: float = 0.0
    end_s: float = 0.0
    defect_class: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """Report in the store; `sample_id` is None for a time in which nothing was sent, and for an expired sample."""

    number: int
    device_id: str
    site: str
    source_id: str
    sample_id: uuid.UUID | None
    is_of_sample: bool
    begin_s: float
    end_s: float
    defect_class: str
    note: str
    author: str
    at_s: float
    withdrawn_at_s: float | None
    withdrawn_by: str


class ReportRefusedError(DataError):
    """A report without a sample or a device's source, with an impossible time, or beyond MAX_REPORTS."""


class UnknownSubjectError(DataError):
    """A sample, device or report that is not in the store, or of other sites."""


async def report_miss(store: Store, new: NewReport, by: Decider) -> tuple[StoredReport, bool]:
    """Store a report, and return it and whether it is new; a repeated key stores nothing.

    Raises ReportRefusedError, UnknownSubjectError, UnknownClassError, KeyReusedError or StorageError.
    """
    async with store.writing() as connection:
        if (earlier := await _earlier(connection, new, by)) is not None:
            return earlier, False
        values = await _sample_values(connection, new, by) if new.sample_id else await _span_values(connection, new, by)
        of_device = select(func.count()).where(missed_reports.c.device_id == values["device_id"])
        if (await connection.execute(of_device)).scalar_one() >= MAX_REPORTS:
            raise ReportRefusedError(f"Device {values['device_id']} has {MAX_REPORTS} reports already.")
        values |= {"defect_class": await find_class(connection, new.defect_class), "note": new.note}
        values |= {"author": by.author, "actor": by.actor, "client_key": by.client_key, "at_s": time.time()}
        number = (
            await connection.execute(insert(missed_reports).values(values).returning(missed_reports.c.number))
        ).scalar_one()
        if new.sample_id is not None:
            label = NewLabel(Label.MISSED, by.author, new.note, defect_class=new.defect_class)
            await write_label(connection, new.sample_id, values["sample_number"], label, by.actor)
        details = {"device": values["device_id"], "source": values["source_id"]}
        details |= {"class": new.defect_class} if new.defect_class else {}
        await audit.record(connection, by.actor, AuditAction.MISS_REPORTED, f"miss {number}", **details)
        await raise_version(connection)
        return await _one(connection, number), True


async def withdraw_report(store: Store, number: int, by: Decider) -> StoredReport:
    """Withdraw a report, and the label that it gave unless there is a later one of anybody.

    Raises UnknownSubjectError.
    """
    async with store.writing() as connection:
        query = _LISTED.where(missed_reports.c.number == number, *by_sites(missed_reports.c.device_id, by.sites))
        row = (await connection.execute(query)).mappings().one_or_none()
        if row is None or row["withdrawn_at_s"] is not None:
            raise UnknownSubjectError(f"Report {number}")
        changed = {"withdrawn_at_s": time.time(), "withdrawn_by": by.author}
        await connection.execute(update(missed_reports).where(missed_reports.c.number == number).values(changed))
        if row["sample_id"] is not None and await _label_is_newest(connection, row):
            label = NewLabel(Label.WITHDRAWN, by.author)
            await write_label(connection, uuid.UUID(bytes=row["sample_id"]), row["sample_number"], label, by.actor)
        await audit.record(connection, by.actor, AuditAction.MISS_WITHDRAWN, f"miss {number}")
        await raise_version(connection)
        return await _one(connection, number)


async def report_page(
    connection: AsyncConnection,
    *,
    device_id: str = "",
    sites: Sequence[str] = (),
    site: str = "",
    before: int | None = None,
    size: int = 50,
    with_withdrawn: bool = False,
) -> tuple[StoredReport, ...]:
    """Return the newest `size` reports, or the next ones older than the number `before`."""
    query = _LISTED.where(*by_sites(missed_reports.c.device_id, sites)).order_by(missed_reports.c.number.desc())
    if device_id:
        query = query.where(missed_reports.c.device_id == device_id)
    if site:
        query = query.where(*by_sites(missed_reports.c.device_id, [site]))
    if not with_withdrawn:
        query = query.where(missed_reports.c.withdrawn_at_s.is_(None))
    if before is not None:
        query = query.where(missed_reports.c.number < before)
    return tuple(_stored(row) for row in (await connection.execute(query.limit(size))).mappings())


async def count_reports(connection: AsyncConnection, device_id: str, since_s: float = 0.0) -> int:
    """Return the number of reports about a device that end at `since_s` or later."""
    reports = missed_reports.c
    query = select(func.count()).where(reports.device_id == device_id, reports.end_s >= since_s)
    return int((await connection.execute(query.where(reports.withdrawn_at_s.is_(None)))).scalar_one())


async def _sample_values(connection: AsyncConnection, new: NewReport, by: Decider) -> dict[str, Any]:
    assert new.sample_id is not None
    columns = (samples.c.number, samples.c.device_id, samples.c.source_id, samples.c.captured_at_s)
    query = select(*columns).where(is_sample(connection, new.sample_id.bytes))
    row = (await connection.execute(query.where(*by_sites(samples.c.device_id, by.sites)))).one_or_none()
    if row is None:
        raise UnknownSubjectError(f"Sample {new.sample_id}")
    moment_s = row.captured_at_s
    given = {"sample_number": row.number, "device_id": row.device_id, "source_id": row.source_id}
    return given | {"begin_s": moment_s, "end_s": moment_s}


async def _span_values(connection: AsyncConnection, new: NewReport, by: Decider) -> dict[str, Any]:
    if not new.device_id or not new.source_id.strip():
        raise ReportRefusedError("Give a sample, or a device, its source and a time span.")
    length_s = new.end_s - new.begin_s
    if not (math.isfinite(length_s) and 0 < length_s <= MAX_SPAN_S and new.begin_s >= 0):
        raise ReportRefusedError(f"A time span ends after its begin, at most {MAX_SPAN_S / 86_400:g} days later.")
    if new.end_s > time.time() + MAX_AHEAD_S:
        raise ReportRefusedError("A time span that lies in the future cannot be reported.")
    query = select(devices.c.device_id).where(devices.c.device_id == new.device_id)
    query = query.where(*by_sites(devices.c.device_id, by.sites))
    if (await connection.execute(query)).first() is None:
        raise UnknownSubjectError(f"Device {new.device_id}")
    given = {"sample_number": None, "device_id": new.device_id, "source_id": new.source_id.strip()}
    return given | {"begin_s": new.begin_s, "end_s": new.end_s}


def _listed() -> Select[Any]:
    joined = missed_reports.join(devices, devices.c.device_id == missed_reports.c.device_id).outerjoin(
        samples, samples.c.number == missed_reports.c.sample_number
    )
    query = select(missed_reports, devices.c.site, samples.c.sample_id).select_from(joined)
    return with_class_name(query, missed_reports.c.defect_class)


_LISTED = _listed()


async def _label_is_newest(connection: AsyncConnection, report: RowMapping) -> bool:
    """Return whether the newest label of a report's sample is the one that the report gave.

    That is the first label since the report with its actor, note and class: both were stored in one transaction.
    """
    same = [labels.c[name] == report[name] for name in ("actor", "author", "note")]
    same.append(labels.c.defect_class.is_not_distinct_from(report["defect_class"]))
    given = (labels.c.label == Label.MISSED.value, labels.c.at_s >= report["at_s"], *same)
    of_sample = labels.c.sample_number == report["sample_number"]
    newest = select(func.max(labels.c.number)).where(of_sample).scalar_subquery()
    own = select(func.min(labels.c.number)).where(of_sample, *given).scalar_subquery()
    return (await connection.execute(select(newest == own))).scalar_one() is True


async def _earlier(connection: AsyncConnection, new: NewReport, by: Decider) -> StoredReport | None:
    """Return the report of an earlier request with the same key."""
    if by.client_key is None:
        return None
    query = _LISTED.where(missed_reports.c.actor == by.actor, missed_reports.c.client_key == by.client_key)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    stored = _stored(row)
    common = (stored.author, stored.note, folded(stored.defect_class)) == (
        by.author,
        new.note,
        folded(new.defect_class),
    )
    of_span = (stored.is_of_sample, stored.device_id, stored.source_id, stored.begin_s, stored.end_s)
    span = (False, new.device_id, new.source_id.strip(), new.begin_s, new.end_s)
    if not common or not (stored.sample_id == new.sample_id if new.sample_id else of_span == span):
        raise KeyReusedError(f"Key {by.client_key!r} stored another report before: use a new key for each.")
    return stored


async def _one(connection: AsyncConnection, number: int) -> StoredReport:
    return _stored((await connection.execute(_LISTED.where(missed_reports.c.number == number))).mappings().one())


def _stored(row: RowMapping) -> StoredReport:
    names = ("number", "device_id", "site", "source_id", "begin_s", "end_s", "note", "author", "at_s")
    return StoredReport(
        **{name: row[name] for name in (*names, "withdrawn_at_s", "withdrawn_by")},
        sample_id=uuid.UUID(bytes=row["sample_id"]) if row["sample_id"] is not None else None,
        is_of_sample=row["sample_number"] is not None,
        defect_class=row["class_name"] or "",
    )
