"""Removal of a device's data: small steps, resumed from the store, and samples that wait."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner, Result

from cloud.store import open_store
from cloud.store import removal as removal_module
from cloud.store.fleet import device
from cloud.store.inbox import unpack_next
from cloud.store.judging import waiting_samples
from cloud.store.removal import begin_removal, delete_data, removals
from cloud.store.schema import payloads, samples, verdicts
from shared import cli
from tests.cloud.store.backends import large_request, only_postgresql
from tests.cloud.store.test_store import judge_all


class CutError(Exception):
    """The process ends here."""


async def cut(*_: object) -> None:
    raise CutError


async def count(store, table, device_id: str = "one") -> int:
    query = select(func.count()).select_from(table)
    if table is not samples:
        query = query.join(samples, samples.c.number == table.c.number)
    async with store.reading() as connection:
        return (await connection.execute(query.where(samples.c.device_id == device_id))).scalar_one()


@pytest.mark.parametrize("keep_verdicts", [False, True])
async def test_a_removal_that_is_cut_at_each_pause_goes_on_from_the_store(store, add, keep_verdicts, monkeypatch):
    monkeypatch.setattr(type(store), "rest", cut)
    await add(count=60)
    await add("two", count=3)
    await judge_all(store)
    await begin_removal(store, "one", keep_verdicts=keep_verdicts)
    table = payloads if keep_verdicts else samples
    left, cuts = 60, 0
    while left:
        (removal,) = await removals(store)
        try:
            await delete_data(store, removal, service_runs=False)
        except CutError:
            cuts += 1
        after = await count(store, table)
        assert left - after <= 32  # a step is small
        left = after
    assert cuts > 2
    monkeypatch.undo()
    for removal in await removals(store):
        assert await delete_data(store, removal, service_runs=False)
    assert await removals(store) == []
    assert await count(store, verdicts) == (60 if keep_verdicts else 0)
    assert await count(store, payloads, "two") == 3
    assert (await device(store, "one") is None) != keep_verdicts


async def test_waiting_samples_are_left_to_a_running_service(store, add):
    await add(count=2)
    await judge_all(store)
    await add(count=2)
    removal = await begin_removal(store, "one", keep_verdicts=False)
    assert not await delete_data(store, removal, service_runs=True)
    assert len(await waiting_samples(store, 10)) == await count(store, samples) == 2
    await judge_all(store)
    assert not await delete_data(store, removal, service_runs=True)  # requests may still be open
    assert await count(store, samples) == 0
    assert await delete_data(store, removal, service_runs=False)


@only_postgresql
async def test_a_request_that_is_unpacked_while_a_removal_looks_for_samples_is_found(store, add, location, monkeypatch):
    """A sample without its device would stay: no foreign key leads from a partition to the devices."""
    await add(count=1)
    await judge_all(store)
    request, _ = large_request(100, device_id="one")
    assert await store.append_requests([request]) == [None]
    removal = replace(await begin_removal(store, "one", keep_verdicts=False), requested_at_s=0.0)

    async def look(connection, queries):
        found = []
        for query in queries:
            found.append((await connection.execute(query.limit(1))).first())
            async with open_store(location) as other:
                await unpack_next(other, 10)
        return any(row is not None for row in found)

    async def nothing_yet(_, queries):
        monkeypatch.setattr(removal_module, "_any", look)
        return False

    monkeypatch.setattr(removal_module, "_any", nothing_yet)
    assert not await delete_data(store, removal, service_runs=True)
    assert await count(store, samples) == 1
    assert await device(store, "one") is not None


async def test_without_a_service_waiting_samples_go_unless_verdicts_are_kept(store, add):
    await add(count=2)
    kept = await begin_removal(store, "one", keep_verdicts=True)
    assert not await delete_data(store, kept, service_runs=False)
    assert await count(store, payloads) == 2
    gone = await begin_removal(store, "one", keep_verdicts=False)
    assert await delete_data(store, gone, service_runs=False)
    assert await device(store, "one") is None


@only_postgresql
async def test_a_command_leaves_the_rest_to_a_service_that_may_run_elsewhere(
    store, add, location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.build("cloud").root, ["cloud", "devices", *words, "--config", str(config)])

    config, result = tmp_path / "cloud.toml", tmp_path / "result.json"
    config.write_text(f'data_dir = "{tmp_path / "here"}"\nstore_url = "{location.url}"\n')
    monkeypatch.setattr(removal_module, "GRACE_S", 0.1)
    listed = await asyncio.to_thread(run, "--json", str(result))
    assert listed.exit_code == 0, listed.output
    assert "does not run" not in listed.stdout
    assert json.loads(result.read_text())["service_runs"] is None
    await add(count=2)
    left = await asyncio.to_thread(run, "remove", "one", "--json", str(result))
    assert "one: removed; the service judges its waiting samples first" in left.stdout
    assert json.loads(result.read_text())["done"] is False
    assert await count(store, samples) == 2
    gone = await asyncio.to_thread(run, "remove", "two")
    assert "two: removed with its data." in gone.stdout
    assert [removal.device_id for removal in await removals(store)] == ["one"]
    assert not (tmp_path / "here" / "pki").exists()
