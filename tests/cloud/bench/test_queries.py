"""Benchmark of the queries of the console, and the generated store that it measures."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Connection, func, insert, inspect, select, text
from typer.testing import CliRunner

from cloud.bench.large_store import make_store
from cloud.bench.large_store_rows import StoreContents
from cloud.bench.queries import FILTERS
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.migrate import migrate
from cloud.store.schema import ALL_DEVICES, devices, metadata, payloads, samples, sources, verdict_counts, verdicts
from shared import cli


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> StoreLocation:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return StoreLocation(tmp_path, url)


def measure(location: StoreLocation, json_path: Path) -> Result:
    where = ["--store-url", location.url] if location.url else ["--folder", str(location.data_dir)]
    options = ["--verdicts", "2000", "--repeats", "1", *where, "--json", str(json_path)]
    return CliRunner().invoke(cli.build().root, ["bench", "cloud", "queries", *options])


def test_every_query_is_measured_on_each_store(location: StoreLocation, tmp_path: Path) -> None:
    json_path = tmp_path / "queries.json"
    answer = measure(location, json_path)
    assert answer.exit_code == 0, answer.output
    summary = json.loads(json_path.read_text())
    assert summary["verdicts"] == 2000
    assert set(FILTERS) < set(summary["figures"])
    assert all(times["median_ms"] > 0 for times in summary["figures"].values())
    assert len(summary["requirements"]) == 2 * len(summary["figures"])


async def test_a_store_of_a_service_is_refused(tmp_path: Path) -> None:
    migrate(tmp_path)
    row = {"device_id": "mine", "enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}
    async with open_store(tmp_path) as store, store.writing() as connection:
        await connection.execute(insert(devices), [row])
    answer = measure(StoreLocation(tmp_path), tmp_path / "queries.json")
    assert "no benchmark has made" in json.loads((tmp_path / "queries.json").read_text())["error"]
    assert answer.exit_code != 0


async def test_a_generated_store_has_counts_indices_and_keys_of_a_real_one(location: StoreLocation) -> None:
    make_store(location, StoreContents(300, devices=7, waiting=20, with_payload=100, payload_bytes=50))
    async with open_store(location) as store, store.reading() as connection:
        counts = [select(func.count()).select_from(table) for table in (samples, verdicts, payloads, sources)]
        assert [(await connection.execute(query)).scalar_one() for query in counts] == [320, 300, 100, 7]
        counted = select(func.sum(verdict_counts.c.verdicts)).where(verdict_counts.c.device_id == ALL_DEVICES)
        assert (await connection.execute(counted)).scalar_one() == 300
        assert {len(data) for data in (await connection.execute(select(payloads.c.data))).scalars()} == {50}
        ids = (await connection.execute(select(samples.c.sample_id).order_by(samples.c.number))).scalars().all()
        assert sorted(ids) == list(ids)
        await connection.run_sync(check_tables)


def check_tables(connection: Connection) -> None:
    listed = {"sqlite": "SELECT name FROM sqlite_master", "postgresql": "SELECT indexname FROM pg_indexes"}
    found = set(connection.execute(text(listed[connection.dialect.name])).scalars())
    tables = [metadata.tables[name] for name in ("samples", "verdicts", "payloads")]
    assert {index.name for table in tables for index in table.indexes} <= found
    for table in tables:  # triggers replace the foreign keys on PostgreSQL
        expected = len(table.foreign_keys) if connection.dialect.name == "sqlite" else 0
        assert len(inspect(connection).get_foreign_keys(table.name)) == expected
