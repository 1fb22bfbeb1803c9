"""Samples of a comparison: which of the stored ones are judged, and the answers of both bundles."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, exists, false, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.comparisons import AskedSamples, Comparison, SampleChoice, may_judge
from cloud.store.engine import Store
from cloud.store.judging import SAMPLE_COLUMNS, WaitingSample, sample_of_row
from cloud.store.labels import IS_CURRENT, Label
from cloud.store.sample_keys import may_wait
from cloud.store.schema import bundles, comparison_samples, comparisons, inbox, labels, payloads, samples, verdicts
from shared.samples import Decision

MAX_SCANNED = 50_000  # newest verdicts of the span among which the samples of the name are looked for
ANOMALOUS, NORMAL = (Label.REAL, Label.MISSED), (Label.FALSE_ALARM,)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of one bundle on one sample; `p_value` is None if it could not be judged."""

    p_value: float | None
    decision: Decision
    latency_ms: float

    @property
    def is_anomalous(self) -> bool:
        """Whether the bundle raises the sample."""
        return self.decision is Decision.ANOMALOUS


@dataclass(frozen=True, slots=True)
class ComparedSample:
    """One judged sample of a comparison; `sample_id` and `device_id` are None once it has expired."""

    sample_number: int
    sample_id: uuid.UUID | None
    device_id: str | None
    label: Label | None
    first: Answer
    second: Answer

    @property
    def is_judged(self) -> bool:
        """Whether both bundles could judge the sample."""
        return Decision.UNDECIDED not in (self.first.decision, self.second.decision)


async def choose(store: Store, comparison: Comparison, false_alarm_rate: float) -> int:
    """Store which samples a claimed comparison judges, and return their number; each has its payload still.

    Nothing is stored, and 0 returned, if the claim is lost.
    """
    async with store.reading() as connection:
        query = select(bundles.c.bundle_id).where(bundles.c.name == comparison.bundle_name)
        names = (await connection.execute(query)).scalars().all()
        modality = (
            await connection.execute(
                select(bundles.c.modality).where(bundles.c.bundle_id == comparison.first_bundle_id)
            )
        ).scalar_one()
        asked = comparison.asked
        if asked.choice is SampleChoice.LABELLED:
            found: list[Any] = []
            for kinds in (ANOMALOUS, NORMAL):
                query_of_kind = _labelled(asked, names, [kind.value for kind in kinds], (asked.size + 1) // 2)
                found += (await connection.execute(query_of_kind)).all()
        else:
            found = list((await connection.execute(_newest(asked, names, modality))).all())
        numbers = [row.number for row in found]
        known = {}
        if numbers:
            current = select(labels.c.sample_number, labels.c.label).where(
                labels.c.sample_number.in_(numbers), IS_CURRENT
            )
            known = {row.sample_number: row.label for row in await connection.execute(current)}
    rows = [
        {
            "comparison": comparison.number,
            "sample_number": number,
            "label": _kept_label(known.get(number, "")),
            "judged": False,
        }
        for number in numbers
    ]
    async with store.writing() as connection:
        if not await may_judge(connection, comparison.number, comparison.runner):
            return 0
        if rows:
            await connection.execute(insert(comparison_samples), rows)
        this = comparisons.c.number == comparison.number
        values = {"samples": len(rows), "false_alarm_rate": false_alarm_rate}
        await connection.execute(update(comparisons).where(this).values(values))
    return len(rows)


async def next_samples(connection: AsyncConnection, number: int, limit: int) -> list[WaitingSample]:
    """Return the next samples of a comparison to judge; those that have expired meanwhile are left out."""
    query = (
        select(*SAMPLE_COLUMNS)
        .join(comparison_samples, comparison_samples.c.sample_number == samples.c.number)
        .where(comparison_samples.c.comparison == number, comparison_samples.c.judged == false())
        .order_by(samples.c.number)
        .limit(limit)
    )
    return [sample_of_row(row) for row in await connection.execute(query)]


async def save_answers(
    store: Store, number: int, runner: str, answers: Sequence[tuple[int, Answer, Answer]], seconds: float
) -> bool:
    """Store the answers on samples by their number, and the progress, in one transaction; return whether it was done.

    Nothing is stored if `runner` has lost its claim.
    """
    rows = [
        {"b_number": sample_number, "judged": True} | _columns("first", first) | _columns("second", second)
        for sample_number, first, second in answers
    ]
    this = comparison_samples.c.comparison == number
    statement = update(comparison_samples).where(this, comparison_samples.c.sample_number == bindparam("b_number"))
    async with store.writing() as connection:
        if not await may_judge(connection, number, runner):
            return False
        if rows:
            changed: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "b_number"}
            await connection.execute(statement.values(changed), rows)
        counted = select(func.count()).where(this, comparison_samples.c.judged).scalar_subquery()
        values: dict[str, Any] = {
            "judged": counted,
            "judging_s": comparisons.c.judging_s + seconds,
            "waits_for_live": False,
        }
        values["attempts"] = 0  # it gets on
        await connection.execute(update(comparisons).where(comparisons.c.number == number).values(values))
    return True


async def note_waiting(store: Store, number: int) -> None:
    """Store that a comparison waits while live samples are judged."""
    async with store.writing() as connection:
        this = comparisons.c.number == number
        await connection.execute(update(comparisons).where(this).values(waits_for_live=True))


async def live_samples_wait(connection: AsyncConnection, since_s: float) -> bool:
    """Return whether a sample that arrived before `since_s` waits for its verdict."""
    late = (samples.c.judged == false(), samples.c.received_at_s < since_s)
    in_queue = exists().where(*may_wait(connection.dialect.name, samples.c.number), *late)
    in_inbox = exists().where(inbox.c.received_at_s < since_s)
    return bool((await connection.execute(select(or_(in_queue, in_inbox)))).scalar_one())


async def compared_samples(connection: AsyncConnection, number: int) -> list[ComparedSample]:
    """Return the judged samples of a comparison, in the order of their numbers."""
    query = (
        select(comparison_samples, samples.c.sample_id, samples.c.device_id)
        .outerjoin(samples, samples.c.number == comparison_samples.c.sample_number)
        .where(comparison_samples.c.comparison == number, comparison_samples.c.judged)
        .order_by(comparison_samples.c.sample_number)
    )
    return [
        ComparedSample(
            row["sample_number"],
            uuid.UUID(bytes=row["sample_id"]) if row["sample_id"] is not None else None,
            row["device_id"],
            Label(row["label"]) if row["label"] else None,
            *(
                Answer(row[f"{side}_p_value"], Decision(row[f"{side}_decision"]), row[f"{side}_latency_ms"])
                for side in ("first", "second")
            ),
        )
        for row in (await connection.execute(query)).mappings()
    ]


def _newest(asked: AskedSamples, names: Sequence[str], modality: str) -> Select[tuple[int]]:
    """Return the query for the newest samples that bundles of the name screened, with a payload."""
    spans = [verdicts.c.judged_at_s >= asked.since_s] if asked.since_s is not None else []
    spans += [verdicts.c.judged_at_s < asked.until_s] if asked.until_s is not None else []
    order = (verdicts.c.judged_at_s.desc(), verdicts.c.number.desc())
    newest = select(verdicts.c.number, verdicts.c.judged_at_s).where(verdicts.c.modality == modality, *spans)
    scanned = newest.order_by(*order).limit(MAX_SCANNED).subquery()
    return (
        select(samples.c.number)
        .join(scanned, scanned.c.number == samples.c.number)
        .join(payloads, payloads.c.number == samples.c.number)
        .where(samples.c.edge_bundle_id.in_(names))
        .order_by(scanned.c.judged_at_s.desc(), samples.c.number.desc())
        .limit(asked.size)
    )


def _labelled(asked: AskedSamples, names: Sequence[str], kinds: Sequence[str], limit: int) -> Select[tuple[int]]:
    """Return the query for the samples of the name whose newest label is one of `kinds`, with a payload."""
    spans = [labels.c.at_s >= asked.since_s] if asked.since_s is not None else []
    spans += [labels.c.at_s < asked.until_s] if asked.until_s is not None else []
    return (
        select(samples.c.number)
        .join(labels, labels.c.sample_number == samples.c.number)
        .join(payloads, payloads.c.number == samples.c.number)
        .where(labels.c.label.in_(kinds), IS_CURRENT, samples.c.edge_bundle_id.in_(names), *spans)
        .order_by(labels.c.number.desc())
        .limit(limit)
    )


def _kept_label(label: str) -> str:
    return label if label in {kind.value for kind in (*ANOMALOUS, *NORMAL)} else ""


def _columns(side: str, answer: Answer) -> dict[str, object]:
    return {
        f"{side}_p_value": answer.p_value,
        f"{side}_decision": answer.decision.value,
        f"{side}_latency_ms": answer.latency_ms,
    }
