"""Pages, filters and counts of the console."""

import math
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.settings import StoreLocation
from cloud.store import Store, open_store, verdict_ranges
from cloud.store.contents import stored_map, stored_payload
from cloud.store.fleet_queries import device_ids, device_rows, fleet_summary
from cloud.store.postgres.partitions import ADD_ALL_KEYS
from cloud.store.queries import (
    MAX_COUNTED,
    VerdictPage,
    count_newer,
    is_waiting,
    judged_sample,
    key_of,
    verdict_page,
)
from cloud.store.schema import (
    HEARTBEAT_INTEGERS,
    anomaly_maps,
    bundles,
    devices,
    heartbeats,
    payloads,
    samples,
    verdicts,
)
from cloud.store.verdict_columns import VerdictRow
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route, new_sample_id
from tests.cloud.store.backends import only_sqlite

COUNT = 600
START_S = 1_760_000_000.0
DEVICES = ("press-1", "press-2")


@pytest.fixture
async def store(location: StoreLocation) -> AsyncIterator[Store]:
    async with open_store(location) as store:
        yield store


def sample_row(number: int, device_id: str, *, judged: bool = True) -> dict[str, object]:
    return {
        "number": number,
        "sample_id": new_sample_id().bytes,
        "device_id": device_id,
        "source_id": f"line-{number % 3}",
        "modality": (Modality.IMAGE if number % 2 else Modality.TABULAR).value,
        "origin": f"frame_{number:06d}.png",
        "captured_at_s": START_S + number,
        "received_at_s": START_S + number + 0.25,
        "route": (Route.AUDIT if number % 5 == 0 else Route.FORWARD).value,
        "edge_score": 1.5,
        "edge_p_value": 0.01,
        "edge_extrapolated": False,
        "edge_bundle_id": "bricks-1-00000000",
        "calibration_id": "c0ffee",
        "artefact": "int8_openvino",
        "payload_bytes": 36,
        "judged": judged,
    }


def verdict_row(sample: dict[str, Any], judged_at_s: float) -> dict[str, object]:
    number = sample["number"]
    return {
        **{name: sample[name] for name in ("number", "device_id", "source_id", "modality", "route")},
        "judged_at_s": judged_at_s,
        "decision": (Decision.ANOMALOUS if number % 7 == 0 else Decision.NORMAL).value,
        "p_value": 0.004,
        "extrapolated": True,
        "bundle_id": "bricks-2-11111111",
        "reason": "",
        "opinions": [{"analyzer": "knn", "score": None, "p_value": 0.01, "extrapolated": False}],
        "contributions": [{"name": "pressure", "share": 0.75}, {"name": "speed", "share": 0.25}],
    }


async def fill(store: Store, count: int = COUNT) -> list[dict[str, Any]]:
    """Verdicts of two devices, judged in another order than they arrived, several of them at the same instant."""
    shuffled = random.Random(3).sample(range(count), count)
    rows = [sample_row(number + 1, DEVICES[number % 2]) for number in range(count)]
    judged = [verdict_row(row, START_S + 1000 + shuffled[place] // 4) for place, row in enumerate(rows)]
    enrolled = {"enrolled_at_s": START_S, "certificate_serial": "1f", "certificate_expires_at_s": START_S + 9e7}
    async with store.writing() as connection:
        await connection.execute(insert(devices), [{"device_id": name, **enrolled} for name in DEVICES])
        await connection.execute(insert(samples), rows)
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql(ADD_ALL_KEYS)
        await connection.execute(insert(verdicts), judged)
    return sorted(judged, key=lambda row: (-row["judged_at_s"], -row["number"]))


async def ask(store: Store, wanted: VerdictFilter | None = None, **options: Any) -> VerdictPage:
    async with store.reading() as connection:
        return await verdict_page(connection, wanted or VerdictFilter(), **options)


async def test_pages_hold_every_verdict_once_newest_first(store: Store) -> None:
    expected = [row["number"] for row in await fill(store)]
    found: list[int] = []
    page = await ask(store, size=37)
    assert page.newer is None
    while True:
        found += [row.number for row in page.rows]
        if page.older is None:
            break
        page = await ask(store, before=page.older, size=37)
        assert page.newer is not None
    assert found == expected
    while page.newer is not None:  # and back again
        page = await ask(store, after=page.newer, size=37)
    assert [row.number for row in page.rows] == expected[:37]


async def test_a_page_stays_where_it_is_while_verdicts_come_in(store: Store) -> None:
    await fill(store)
    first = await ask(store, size=20)
    second = await ask(store, before=first.older, size=20)
    new = sample_row(COUNT + 1, DEVICES[0])
    async with store.writing() as connection:
        await connection.execute(insert(samples), [new])
        await connection.execute(insert(verdicts), [verdict_row(new, START_S + 9999)])
    assert await ask(store, before=first.older, size=20) == second
    async with store.reading() as connection:
        assert await count_newer(connection, VerdictFilter(), key_of(first.rows[0])) == 1
        assert await count_newer(connection, VerdictFilter(device_id=DEVICES[1]), key_of(first.rows[0])) == 0
        assert await count_newer(connection, VerdictFilter(), None) == MAX_COUNTED


@pytest.mark.parametrize(
    "wanted",
    [
        VerdictFilter(device_id="press-2"),
        VerdictFilter(modality=Modality.IMAGE),
        VerdictFilter(route=Route.AUDIT),
        VerdictFilter(decision=Decision.ANOMALOUS, device_id="press-1"),
        VerdictFilter(text="LINE-2"),
        VerdictFilter(text="Frame_00004"),
        VerdictFilter(text="frame_00004", device_id="press-1", decision=Decision.ANOMALOUS),
        VerdictFilter(text="*004"),
        VerdictFilter(text="*NE-2", route=Route.AUDIT),
        VerdictFilter(since_s=START_S + 1050, until_s=START_S + 1060),
        VerdictFilter(device_id="press-1", route=Route.FORWARD, text="frame", decision=Decision.NORMAL),
    ],
)
async def test_filters_leave_exactly_the_matching_rows(store: Store, wanted: VerdictFilter) -> None:
    everything = await fill(store)

    def matches(row: dict[str, Any]) -> bool:
        texts = (f"frame_{row['number']:06d}.png", row["source_id"])
        text = wanted.text.lower()
        route = Route.AUDIT if row["number"] % 5 == 0 else Route.FORWARD
        return (
            wanted.device_id in ("", row["device_id"])
            and wanted.modality in (None, row["modality"])
            and wanted.route in (None, route)
            and wanted.decision in (None, row["decision"])
            and any(text[1:] in each if text.startswith("*") else each.startswith(text) for each in texts)
            and (wanted.since_s is None or row["judged_at_s"] >= wanted.since_s)
            and (wanted.until_s is None or row["judged_at_s"] < wanted.until_s)
        )

    expected = [row["number"] for row in everything if matches(row)][:50]
    assert [row.number for row in (await ask(store, wanted)).rows] == expected
    assert expected


@only_sqlite
@pytest.mark.parametrize(
    "wanted",
    [
        VerdictFilter(),
        VerdictFilter(device_id="press-1"),
        VerdictFilter(decision=Decision.ANOMALOUS),
        VerdictFilter(device_id="press-1", decision=Decision.ANOMALOUS),
        VerdictFilter(route=Route.AUDIT, modality=Modality.IMAGE, since_s=START_S),
        VerdictFilter(route=Route.ACCEPT),
        VerdictFilter(text="frame_00004"),
        VerdictFilter(text="line-2", route=Route.AUDIT),
        VerdictFilter(text="*004"),
    ],
)
async def test_a_page_reads_ranges_of_indexes_only(store: Store, wanted: VerdictFilter) -> None:
    await fill(store)
    key = VerdictKey(START_S + 1100, 50)
    async with store.reading() as connection:
        plans = await plans_of(connection, lambda: verdict_page(connection, wanted, before=key))
        plans |= await plans_of(connection, lambda: count_newer(connection, wanted, key))
    for statement, plan in plans.items():
        reads = [step for step in plan if "verdicts" in step or "samples" in step]
        assert all(step.startswith("SEARCH") for step in reads), plan
        bounded = ("UNION", "IN (", "verdict_counts", "AS anon_1 JOIN samples")  # they sort a page or a window
        if reads and not any(word in statement for word in bounded):
            assert not [step for step in plan if "TEMP B-TREE" in step], plan


@only_sqlite
async def test_figures_of_fleet_and_devices_read_no_verdict_and_no_judged_sample(store: Store) -> None:
    await fill(store)
    async with store.reading() as connection:
        plans = await plans_of(connection, lambda: fleet_summary(connection, alive_since_s=0.0))
        plans |= await plans_of(connection, lambda: device_rows(connection))
    reads = {step for plan in plans.values() for step in plan if "verdicts" in step or "samples" in step}
    assert reads == {
        "SCAN verdicts USING COVERING INDEX ix_verdicts_judged_at_s",  # the newest: one row
        "SCAN samples USING INDEX ix_samples_waiting",
        "SEARCH samples USING INDEX ix_samples_waiting (device_id>? AND device_id<?)",
    }


async def plans_of(connection: AsyncConnection, query: Callable[[], Awaitable[object]]) -> dict[str, list[str]]:
    """Return the steps of SQLite's plan for each statement of the query."""
    statements: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    event.listen(connection.sync_connection, "before_cursor_execute", remember)
    await query()
    event.remove(connection.sync_connection, "before_cursor_execute", remember)
    return {
        statement: [row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        for statement, parameters in statements
    }


@pytest.mark.parametrize("text", ["*3.png", "line-1", "*LINE-1", "frame_0001"])
@pytest.mark.parametrize("decision", [None, Decision.ANOMALOUS, Decision.UNDECIDED])
async def test_a_search_that_ends_early_goes_on_with_the_next_page(
    store: Store, monkeypatch: pytest.MonkeyPatch, text: str, decision: Decision | None
) -> None:
    await fill(store)
    wanted = VerdictFilter(text=text, decision=decision)
    expected = (await ask(store, wanted, size=200)).rows
    monkeypatch.setattr(verdict_ranges, "WINDOW", 40)
    monkeypatch.setattr(verdict_ranges, "MAX_CANDIDATES", 5)
    found: list[VerdictRow] = []
    page = await ask(store, wanted, size=10)
    while page.older is not None:
        assert page.is_partial == (len(page.rows) < 10)
        found += page.rows
        page = await ask(store, wanted, before=page.older, size=10)
    assert [*found, *page.rows] == list(expected)
    assert bool(expected) == (decision is not Decision.UNDECIDED)
    if expected:  # and back from the last match
        back = await ask(store, wanted, after=key_of(expected[-1]), size=10)
        assert set(back.rows) <= set(expected)
        assert back.rows or back.newer is not None


async def test_a_search_without_a_hit_is_complete(store: Store) -> None:
    await fill(store)
    page = await ask(store, VerdictFilter(text="no such file"))
    assert (page.rows, page.older, page.is_partial) == ((), None, False)


async def test_text_is_taken_literally(store: Store) -> None:
    await fill(store)
    for text in (
        "%",
        "*%",
        "frame_0000__.png",
        "*0000__",
        "frame_\U0010ffff",
        "'; DROP TABLE verdicts; --",
        "\\",
        "x" * 5000,
    ):
        assert (await ask(store, VerdictFilter(text=text))).rows == ()
    assert (await ask(store)).rows


@pytest.mark.parametrize("text", ["", "1", "1.0:", "nan:3", "inf:3", "1.0:-4", f"1.0:{2**63}", "a:b", "1.0:2:3"])
def test_a_key_that_was_tampered_with_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        VerdictKey.parse(text)


def test_a_key_survives_its_way_through_text() -> None:
    key = VerdictKey(START_S + 0.1 + 0.2, 2**40)
    assert VerdictKey.parse(str(key)) == key


async def test_sizes_and_keys_out_of_range_are_refused(store: Store) -> None:
    key = VerdictKey(1.0, 1)
    for options in ({"size": 0}, {"size": 201}, {"before": key, "after": key}):
        with pytest.raises(DataError):
            await ask(store, **options)


async def test_detail_payload_and_map(store: Store) -> None:
    (row, *_) = await fill(store, 3)
    async with store.writing() as connection:
        await connection.execute(
            insert(payloads).values(
                number=row["number"],
                encoding=1,
                shape=[2],
                data=bytes(8),
                edge_map_height=1,
                edge_map_width=2,
                edge_map=b"\x01\x02",
            )
        )
        await connection.execute(
            insert(anomaly_maps).values(number=row["number"], height=2, width=1, cells=b"\x07\x08")
        )
        await connection.execute(
            insert(bundles).values(
                bundle_id="bricks-2-11111111",
                name="bricks",
                version=2,
                modality="tabular",
                published_at_s=START_S,
                parent_bundle_id="",
                edge_archive_bytes=1,
                edge_archive_sha256="0" * 64,
                manifest={"input": {"channels": ["pressure", "speed"]}},
            )
        )
    sample_id = (await ask(store)).rows[0].sample_id
    async with store.reading() as connection:
        detail = await judged_sample(connection, sample_id)
        assert detail is not None
        assert detail.channels == ("pressure", "speed")
        assert math.isnan(detail.record.opinions[0].score)
        assert detail.record.contributions == (("pressure", 0.75), ("speed", 0.25))
        unknown = uuid.uuid4()
        assert await judged_sample(connection, unknown) is None
        assert not await is_waiting(connection, unknown)
    payload, cells = await stored_payload(store, sample_id), await stored_map(store, sample_id)
    assert payload is not None
    assert payload.edge_map is not None
    assert (payload.judged, tuple(payload.message.shape), payload.edge_map.cells) == (True, (2,), b"\x01\x02")
    assert cells is not None
    assert (cells.height, cells.width, cells.cells) == (2, 1, b"\x07\x08")
    assert await stored_payload(store, unknown) is None
    assert await stored_map(store, unknown) is None


async def test_fleet_figures(store: Store) -> None:
    async with store.reading() as connection:
        empty = await fleet_summary(connection, alive_since_s=0.0)
    assert (empty.devices, empty.pending, empty.newest, empty.last_heartbeat_at_s) == (0, 0, None, None)
    newest = (await fill(store))[0]
    beat = dict.fromkeys(HEARTBEAT_INTEGERS, 0)
    async with store.writing() as connection:
        await connection.execute(insert(samples), [sample_row(COUNT + 5, DEVICES[0], judged=False)])
        for place, device_id in enumerate(DEVICES):
            await connection.execute(
                insert(heartbeats).values(
                    {
                        **beat,
                        "device_id": device_id,
                        "received_at_s": START_S + place,
                        "agent_version": "0.1.0",
                        "samples_screened": 2**62,
                        "running": [],
                        "warnings": ["spool full"],
                    }
                )
            )
    async with store.reading() as connection:
        summary = await fleet_summary(connection, alive_since_s=START_S + 0.5)
        rows = await device_rows(connection)
        assert await device_ids(connection) == DEVICES
    assert (summary.devices, summary.reporting, summary.last_heartbeat_at_s) == (2, 1, START_S + 1)
    assert summary.counters.samples_screened == 2**63  # more than an integer of the store holds
    assert (summary.pending, summary.oldest_pending_at_s) == (1, START_S + COUNT + 5.25)
    assert summary.newest == VerdictKey(newest["judged_at_s"], newest["number"])
    assert sum(summary.decisions.values()) == COUNT
    assert [row.pending for row in rows] == [1, 0]
    assert rows[0].heartbeat.warnings == ("spool full",)
    assert sum(count for row in rows for count in row.decisions.values()) == COUNT
