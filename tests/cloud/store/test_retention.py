"""Retention by age and by label."""

import time
import uuid

from sqlalchemy import insert, select

from cloud.store.contents import stored_payload
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.retention import remove_old
from cloud.store.schema import labels, samples
from tests.cloud.store.test_store import judge_all
from tests.cloud.stored_samples import count_stored


async def test_labelled_samples_stay_whole_until_their_own_age(store, add):
    old = await add(count=4)
    await judge_all(store, judged_at_s=time.time() - 450 * 86_400)  # partitions may keep rows for a fifth longer
    new = await add(count=1)
    await judge_all(store)
    kept, others = old[:1], old[1:]
    for sample_id in (*kept, *new):
        await add_label(store, uuid.UUID(bytes=sample_id), NewLabel(Label.REAL, "anna"), "test")
    ages = {"payloads_days": 30, "verdicts_days": 365, "events_days": 0}
    removed = await remove_old(store, **ages, labelled_days=500)
    assert (removed["payloads"], removed["verdicts"]) == (3, 3)
    assert (await count_stored(store, others), await count_stored(store, [*kept, *new])) == (0, 2)
    assert await stored_payload(store, uuid.UUID(bytes=kept[0])) is not None
    assert (await remove_old(store, **ages, labelled_days=0))["verdicts"] == 0  # never
    assert (await remove_old(store, **ages, labelled_days=100))["verdicts"] == 1  # not before verdicts_days
    assert (await count_stored(store, kept), await count_stored(store, new)) == (0, 1)


async def test_deletion_reads_on_behind_rows_that_are_kept(store, add):
    await add(count=40)
    await judge_all(store, judged_at_s=1.0)
    oldest = select(samples.c.number).order_by(samples.c.number).limit(35)  # more than a step reads
    given = {"label": "real", "author": "anna", "note": "", "at_s": 1.0, "actor": "test"}
    async with store.writing() as connection:
        numbers = (await connection.execute(oldest)).scalars().all()
        await connection.execute(insert(labels), [{"sample_number": number, **given} for number in numbers])
    removed = await remove_old(store, payloads_days=1, verdicts_days=2, events_days=0)
    assert (removed["payloads"], removed["verdicts"]) == (5, 5)
