"""Retention by age and by label."""

import asyncio
import contextlib
import shutil
import sqlite3
import time
import uuid

import pytest
from sqlalchemy import delete, insert, select

from cloud.store import retention
from cloud.store.contents import stored_payload
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.retention import remove_old
from cloud.store.schema import labels, samples
from cloud.store.sqlite import checkpoints
from tests.cloud.store.backends import only_sqlite
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


async def test_a_deleting_transaction_is_whole_and_waits_for_others(store, add):
    await add(count=4)
    order = list[str]()

    async def delete_all(error: Exception | None = None) -> None:
        async with store.deleting() as connection:
            order.append("deleted")
            await connection.execute(delete(samples))
            if error is not None:
                raise error

    with pytest.raises(RuntimeError):
        await delete_all(RuntimeError())
    async with store.reading() as connection:
        assert len((await connection.execute(select(samples.c.number))).all()) == 4
    order.clear()
    async with store.writing():
        deleting = asyncio.create_task(delete_all())
        await asyncio.sleep(0.02)
        order.append("written")
    await deleting
    assert order == ["written", "deleted"]
    async with store.reading() as connection:
        assert (await connection.execute(select(samples.c.number))).all() == []


@only_sqlite
async def test_deleted_rows_are_in_the_file_itself_after_a_rest(store, add, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 60.0)
    await add(count=4)
    async with store.deleting() as connection:
        await connection.execute(delete(samples))
    await store.rest(0.0)
    alone = tmp_path / "alone.sqlite"
    shutil.copyfile(store.path, alone)  # without the log, as if that had not reached the disk
    with contextlib.closing(sqlite3.connect(alone)) as connection:
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@only_sqlite
async def test_retention_copies_its_log_itself(store, add, monkeypatch):
    """So that little is left to copy at once, and commits of others find the disk free."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 60.0)
    monkeypatch.setattr(retention, "FIRST_ROWS", 1)
    monkeypatch.setattr(retention, "MOST_ROWS", 1)
    monkeypatch.setattr(retention, "PAUSE_S", 0.0)
    await add(count=20)
    await judge_all(store, judged_at_s=1.0)
    lengths, copy_log = list[int](), store._checkpoints.copy_log

    async def counted() -> int:
        lengths.append(await copy_log())
        return lengths[-1]

    monkeypatch.setattr(store._checkpoints, "copy_log", counted)
    assert (await retention.remove_old(store, payloads_days=1, verdicts_days=2, events_days=0))["verdicts"] == 20
    assert len(lengths) >= 40
