"""Waiting samples of which each is judged by one of several processes."""

import asyncio

from sqlalchemy import func, select, update

from cloud.store import judging, open_store
from cloud.store.claims import end, take
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.schema import claims, events, samples, verdicts
from tests.cloud.store.backends import only_postgresql
from tests.cloud.store.test_store import verdict


def ids(waiting) -> set[bytes]:
    return {item.sample_id.bytes for item in waiting}


async def numbers(store, table) -> int:
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def let_claims_run_out(store) -> None:
    async with store.writing() as connection:
        await connection.execute(update(claims).values(until_s=0.0))


@only_postgresql
async def test_two_processes_share_the_queue_and_a_killed_one_loses_nothing(store, location, add):
    every = set(await add(count=6))
    async with open_store(location) as other:
        first = await waiting_samples(store, 4)
        second = await waiting_samples(other, 100)
        assert (len(first), len(second), ids(first) | ids(second)) == (4, 2, every)
        assert ids(await waiting_samples(store, 100)) == ids(first)  # its own come again
        await store_verdicts(other, [(item, verdict(item)) for item in second])
        await let_claims_run_out(store)  # as if the first process had been killed
        assert ids(await waiting_samples(other, 100)) == ids(first)


@only_postgresql
async def test_a_process_that_was_only_slow_stores_no_second_verdict(store, location, add):
    await add(count=3)
    slow = await waiting_samples(store, 100)
    await let_claims_run_out(store)
    async with open_store(location) as other:
        quick = await waiting_samples(other, 2)
        await store_verdicts(other, [(item, verdict(item)) for item in quick])
    await store_verdicts(store, [(item, verdict(item)) for item in slow])
    assert [await numbers(store, table) for table in (verdicts, events, claims)] == [3, 3, 0]


@only_postgresql
async def test_a_process_that_claims_waits_for_none_that_stores_verdicts(store, location, add):
    await add(count=3)
    numbers_of = [item.number for item in await waiting_samples(store, 100)]
    async with open_store(location) as other, store.writing() as connection:
        await end(connection, store, numbers_of)
        assert not await asyncio.wait_for(take(other, numbers_of), 5)


async def test_a_sample_removed_while_it_is_judged_gets_no_verdict(store, add):
    await add(count=2)
    waiting = await waiting_samples(store, 100)
    async with store.writing() as connection:
        await connection.execute(samples.delete().where(samples.c.number == waiting[0].number))
    await store_verdicts(store, [(item, verdict(item)) for item in waiting])
    assert await numbers(store, verdicts) == 1


@only_postgresql
async def test_the_queue_is_read_by_its_index_for_each_device(store, add):
    """A subquery that runs for each pair of a device and a sample takes minutes in a large store."""
    await add(count=500)
    async with store.writing() as connection:
        await connection.exec_driver_sql("ANALYZE samples")
    async with store.reading() as connection:
        query = judging._next_of_each_device(store.claimant, connection.dialect.name).params(share=4, without=[])
        compiled = query.compile(connection.sync_connection, compile_kwargs={"literal_binds": True})
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        steps = (await connection.exec_driver_sql(f"EXPLAIN {compiled}")).scalars().all()
    plan = "\n".join(steps)
    assert "samples_1_device_id_number_idx" in plan  # of ix_samples_waiting in the first partition
    assert "Join Filter" not in plan, plan
