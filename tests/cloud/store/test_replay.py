"""Verdicts are counted once for the replay; the last days of a group are read in bounded time."""

import time
import uuid
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from cloud.store.fleet import Place, set_place, store_heartbeat
from cloud.store.group_settings import change_settings, changes_of
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.removal import begin_removal, delete_data
from cloud.store.replay import builder, counts, kept
from cloud.store.replay.builder import count_verdicts, forget_old
from cloud.store.replay.counts import Counts
from cloud.store.replay.kept import KeptWeeks
from cloud.store.replay.outcomes import note_outcomes
from cloud.store.replay.reading import read_week
from cloud.store.review.builder import build_items
from cloud.store.schema import (
    devices,
    group_changes,
    heartbeat_history,
    replay_buckets,
    replay_budgets,
    replay_days,
)
from cloud.thresholds.cells import BINS, ROUTES, SAMPLES, add_packed, bins_of, empty_histogram, unpack_bank
from cloud.thresholds.figures import Trust
from cloud.thresholds.forecast import forecast_of
from cloud.thresholds.week import GroupWeek, SourceWeek
from shared.group_settings import GroupSettings
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from shared.wire import encode_payload
from tests.cloud.store.backends import only_sqlite

NOW_S = float(int(time.time()))
LATER_S = NOW_S + 100


async def judged(
    store: Any,
    p_values: list[float],
    *,
    device_id: str = "one",
    source_id: str = "lab",
    route: Route = Route.FORWARD,
    decision: Decision = Decision.NORMAL,
    at_s: float = NOW_S - 3600,
) -> list[uuid.UUID]:
    """Store samples with these p-values, a second apart, and their verdicts; their ids."""
    values = np.arange(3, dtype=np.float32)
    payload = encode_payload(values, Modality.TABULAR)
    received = [
        Received(
            Sample(new_sample_id(), source_id, Modality.TABULAR, at_s + place, "row", values),
            Screening(1.0, p_value, False, route, "biopsy-1-00000000", "cal", "int8"),
            payload,
        )
        for place, p_value in enumerate(p_values)
    ]
    await store_samples(store, device_id, received, at_s + len(p_values))
    waiting = await waiting_samples(store, 1000)
    verdicts = [Verdict(item.sample_id, decision, 0.004, judged_at_s=at_s + 1, bundle_id="b") for item in waiting]
    await store_verdicts(store, list(zip(waiting, verdicts, strict=True)))
    return [item.sample.sample_id for item in received]


async def histogram_of(store: Any, device_id: str = "one") -> np.ndarray:
    histogram = empty_histogram()
    async with store.reading() as connection:
        for cells in (
            await connection.execute(select(replay_days.c.cells).where(replay_days.c.device_id == device_id))
        ).scalars():
            add_packed(histogram, cells)
    return histogram.reshape(len(ROUTES), BINS, 3)


async def beats(
    store: Any,
    device_id: str = "one",
    *,
    rate_per_s: float = 0.05,
    hours: int = 30,
    at_s: float = NOW_S,
    screened: int = 0,
) -> None:
    """Heartbeats of the hours before a time, of a device that screens at a rate and forwards 5 %."""
    async with store.writing() as connection:
        rows = []
        for hour in range(hours):
            beat_at_s = at_s - (hours - hour) * 3600
            counters = dict.fromkeys(HeartbeatCounters.model_fields, 0)
            counters |= {"samples_screened": screened + int(hour * 3600 * rate_per_s)}
            counters |= {"samples_forwarded": counters["samples_screened"] // 20}
            state = {"spool_samples": 0, "spool_bytes": 0, "health": "healthy", "is_drifting": False}
            place = {"device_id": device_id, "slot": int(beat_at_s // 300), "received_at_s": beat_at_s}
            rows.append(counters | state | place | {"certificate_expires_at_s": 9e9})
        await connection.execute(insert(heartbeat_history), rows)


async def test_each_verdict_counts_once_and_a_later_run_goes_on(store, monkeypatch) -> None:
    monkeypatch.setattr(builder, "STEP", 3)
    await judged(store, [0.01, 0.02, 1e-5, 0.0123], route=Route.FORWARD)
    await judged(store, [0.5], route=Route.AUDIT, decision=Decision.ANOMALOUS)
    assert await count_verdicts(store, now_s=LATER_S) == 5
    assert await count_verdicts(store, now_s=LATER_S) == 0
    await judged(store, [0.01], at_s=NOW_S - 1800)
    assert await count_verdicts(store, now_s=LATER_S) == 1
    found = await histogram_of(store)
    forward, audit = found[ROUTES.index(Route.FORWARD)], found[ROUTES.index(Route.AUDIT)]
    for p_value, count in ((0.01, 2), (0.02, 1), (1e-5, 1), (0.0123, 1)):
        assert forward[bins_of(p_value), SAMPLES] == count, p_value
    assert audit.sum(axis=0).tolist()[:2] == [1, 1]
    assert found[..., 2].sum() == 6 * (12 + builder.ENVELOPE_BYTES)


async def test_a_verdict_that_is_not_settled_waits(store) -> None:
    await judged(store, [0.01], at_s=NOW_S - 2)
    assert await count_verdicts(store, now_s=NOW_S) == 0
    assert await count_verdicts(store, now_s=NOW_S + builder.SETTLED_S) == 1


async def test_many_sources_of_a_hostile_device_are_counted_together(store, monkeypatch) -> None:
    monkeypatch.setattr(builder, "MAX_SOURCES", 3)
    for number in range(6):
        await judged(store, [0.01], source_id=f"source {number}")
    await count_verdicts(store, now_s=LATER_S)
    async with store.reading() as connection:
        names = (await connection.execute(select(replay_days.c.source_id))).scalars().all()
    assert sorted(names) == ["", "source 0", "source 1", "source 2"]
    assert (await histogram_of(store))[..., SAMPLES].sum() == 6


async def test_budgets_are_replayed_over_restarts(store) -> None:
    day_s = (NOW_S // 86_400 - 1) * 86_400 + 3600
    for first in (0, 40):
        await judged(store, [0.01] * 40, at_s=day_s + first)
        await count_verdicts(store, now_s=LATER_S)
    async with store.reading() as connection:
        (cells,) = (await connection.execute(select(replay_budgets.c.cells))).scalars().all()
    passed = unpack_bank(cells)[:, SAMPLES]
    assert passed[-1] == 80
    assert passed[25] == 80, "1 a second passes"
    assert passed[20] == pytest.approx(1 + 79 * 0.1, abs=1.5), "0.1 a second"


async def test_the_week_of_a_group_is_read_and_forecast(store) -> None:
    await set_place(store, ["one"], Place(group="presses"))
    await beats(store)
    ids = await judged(store, [0.02, 0.04, 1e-4, 1e-6], decision=Decision.ANOMALOUS)
    await judged(store, [0.3, 0.6] * 15, route=Route.AUDIT)
    await judged(store, [0.01], device_id="two")
    await add_label(store, ids[3], NewLabel(Label.REAL, "ada"), "account:ada")
    await add_label(store, ids[2], NewLabel(Label.REAL, "ada"), "account:ada")
    await add_label(store, ids[2], NewLabel(Label.FALSE_ALARM, "ada"), "account:ada")
    beat = Heartbeat(
        running=(RunningBundle(source_id="lab"),),
        counters=HeartbeatCounters(samples_screened=5400, samples_forwarded=270),
        settings=GroupSettings(false_alarms_per_day=2.0, audit_share=0.01),
    )
    await store_heartbeat(store, "one", beat)
    await count_verdicts(store, now_s=LATER_S)
    await build_items(store, now_s=LATER_S)
    async with store.reading() as connection:
        week = await read_week(connection, "presses", LATER_S)
        assert await read_week(connection, "nobody", LATER_S) is None
        assert await read_week(connection, "presses", LATER_S, ("elsewhere",)) is None
    assert week is not None
    assert [device.device_id for device in week.devices] == ["one"]
    assert {(each.p_value, each.is_real) for each in week.labelled} == {(1e-6, True), (1e-4, False)}
    assert week.rates_per_s() == pytest.approx([0.05], rel=0.05)
    assert week.items_total == len(week.items) == 1
    found = forecast_of(week, GroupSettings(false_alarms_per_day=1.0))
    assert found.trust is Trust.EXACT
    assert found.proposed.alarms_per_day * found.days == pytest.approx(2)
    assert (found.proposed.reals_alarmed, found.present.false_alarms_per_day) == (1, 2.0)
    lax = forecast_of(week, GroupSettings(false_alarms_per_day=2500.0))  # a level of 0.58
    assert lax.trust is Trust.ESTIMATE
    assert lax.proposed.alarms_per_day * lax.days == pytest.approx(4 + 0.5 * 0.95 * 5400, rel=0.05)


async def test_days_and_sources_are_added_up_over_several_batches(store, monkeypatch) -> None:
    monkeypatch.setattr(counts, "HISTOGRAMS_AT_ONCE", 2)
    for days_ago in (0, 1, 2):
        at_s = NOW_S - 3600 - days_ago * builder.DAY_S
        await judged(store, [0.01, 0.02], source_id="a", at_s=at_s)
        await judged(store, [1e-5], source_id="a", route=Route.ALARM, decision=Decision.ANOMALOUS, at_s=at_s)
        await judged(store, [0.01, 0.3], source_id="b", route=Route.AUDIT, at_s=at_s)
        await judged(store, [0.3], source_id="b", route=Route.AUDIT, decision=Decision.ANOMALOUS, at_s=at_s)
        await judged(store, [0.01], device_id="two", source_id="a", at_s=at_s)
    await count_verdicts(store, now_s=LATER_S)
    async with store.reading() as connection:
        week = await read_week(connection, "default", LATER_S)
    assert week is not None
    sources = {(week.devices[each.device].device_id, each.source_id): each for each in week.sources}
    assert sorted(sources) == [("one", "a"), ("one", "b"), ("two", "a")]

    def filled(values: np.ndarray) -> dict[int, int]:
        return {int(bin_): int(values[bin_]) for bin_ in np.flatnonzero(values)}

    percent, odd, third = (int(bins_of(value)) for value in (0.01, 1e-5, 0.3))
    assert filled(sources["one", "a"].known) == {percent: 3, int(bins_of(0.02)): 3, odd: 3}
    assert filled(sources["one", "a"].audits) == filled(sources["one", "b"].known) == {}
    assert filled(sources["one", "b"].audits) == {percent: 3, third: 6}
    assert filled(sources["one", "b"].audits_asking) == {third: 3}
    assert filled(sources["two", "a"].known) == {percent: 3}
    assert [device.bank[-1, SAMPLES] for device in week.devices] == [18, 3]


async def test_devices_whose_sources_exceed_the_bound_are_left_out_and_the_forecast_says_it(store, monkeypatch) -> None:
    monkeypatch.setattr(counts, "MAX_SOURCES", 4)
    for device_id in ("one", "two"):
        await beats(store, device_id)
        for source_id in ("a", "b") if device_id == "two" else ("a", "b", "made up"):
            await judged(store, [0.01, 1e-5], device_id=device_id, source_id=source_id)
    await count_verdicts(store, now_s=LATER_S)
    async with store.reading() as connection:
        week = await read_week(connection, "default", LATER_S)
        monkeypatch.setattr(counts, "MAX_SOURCES", 5)
        whole = await read_week(connection, "default", LATER_S)
    assert week is not None
    assert whole is not None
    assert [device.device_id for device in week.devices] == ["two"], "the one with fewer sources"
    assert [(each.source_id, each.known.sum()) for each in week.sources] == [("a", 2), ("b", 2)]
    assert (week.left_out, whole.left_out, len(whole.sources)) == (1, 0, 5)
    found, exact = (forecast_of(each, GroupSettings(false_alarms_per_day=1.0)) for each in (week, whole))
    assert (found.trust, found.upload_trust) == (Trust.ESTIMATE, Trust.ESTIMATE)
    assert (exact.trust, exact.upload_trust) == (Trust.EXACT, Trust.EXACT)
    assert "counted on 1 device," in found.sentences[0]
    assert "1 device of this group is left out, so the counts are lower bounds" in found.sentences[-1]
    assert "at most 1,000 devices and 4,000 sources" in found.sentences[-1]


async def test_kept_parts_of_a_week_give_what_a_fresh_reading_gives(store) -> None:
    async def both(now_s: float) -> tuple[GroupWeek, GroupWeek]:
        async with store.reading() as connection:
            kept_week = await read_week(connection, "default", now_s, kept_weeks=weeks)
            fresh = await read_week(connection, "default", now_s)
        assert kept_week is not None
        assert fresh is not None
        assert kept_week.rates_per_s().tolist() == fresh.rates_per_s().tolist()
        settings = GroupSettings(false_alarms_per_day=300.0, max_samples_per_s=0.01)
        assert forecast_of(kept_week, settings) == forecast_of(fresh, settings)
        return kept_week, fresh

    weeks, noon_s = KeptWeeks(), (NOW_S // builder.DAY_S) * builder.DAY_S + 43_200.0
    await beats(store, at_s=noon_s)
    await judged(store, [0.02, 1e-4], at_s=noon_s - 7200)
    await count_verdicts(store, now_s=max(LATER_S, noon_s))
    first, _ = await both(noon_s)
    again, fresh = await both(noon_s + 1)
    assert again.sources is first.sources is not fresh.sources
    await judged(store, [0.01], at_s=noon_s - 7000)
    await beats(store, at_s=noon_s + 6 * 3600, hours=6, screened=90_000)
    await count_verdicts(store, now_s=max(LATER_S, noon_s))
    later, _ = await both(noon_s + 6 * 3600)
    assert later.sources[0].known.sum() == 3
    assert later.devices[0].screened > first.devices[0].screened
    await beats(store, at_s=noon_s + 86_400, hours=2, screened=99_000)
    await both(noon_s + 86_400)
    async with store.writing() as connection:  # with another enrolment, nothing of the former one is used
        await connection.execute(update(devices).values(enrolled_at_s=NOW_S + 1))
        await connection.execute(delete(replay_days))
        await connection.execute(delete(heartbeat_history))
    anew, _ = await both(noon_s + 6 * 3600)
    assert (anew.sources, anew.devices[0].screened) == ([], 0)


def test_kept_weeks_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(kept, "MAX_WEEKS", 2)
    monkeypatch.setattr(kept, "MAX_KEPT_SOURCES", 3)
    weeks = KeptWeeks()
    first, second = weeks.of(["a"], 0.0), weeks.of(["b"], 0.0)
    assert weeks.of(["a"], 0.0) is first
    weeks.of(["c"], 0.0)
    assert weeks.of(["a"], 0.0) is first
    assert weeks.of(["b"], 0.0) is not second, "it was used least recently"
    large = weeks.of(["d"], 0.0)
    large.counts = Counts((1.0, 1), [SourceWeek(0, str(number)) for number in range(4)], np.zeros(0, np.int64), {})
    weeks.shrink()
    assert weeks.of(["d"], 0.0) is not large


async def test_a_counter_that_falls_begins_again(store) -> None:
    await beats(store, hours=10)
    await judged(store, [0.01])
    async with store.writing() as connection:  # the state of the device was made anew in the last hours
        newest = heartbeat_history.c.received_at_s > NOW_S - 2.5 * 3600
        await connection.execute(update(heartbeat_history).where(newest).values(samples_screened=90))
    async with store.reading() as connection:
        week = await read_week(connection, "default", LATER_S)
    assert week is not None
    assert week.devices[0].screened == 7 * 180 + 90


async def test_counts_of_a_removed_device_and_old_ones_go(store) -> None:
    await judged(store, [0.01])
    await judged(store, [0.01], device_id="two")
    await count_verdicts(store, now_s=LATER_S)
    assert await delete_data(store, await begin_removal(store, "two", keep_verdicts=False), service_runs=False)
    assert (await histogram_of(store, "two")).sum() == 0
    assert (await histogram_of(store)).sum() > 0
    await forget_old(store, LATER_S + builder.KEPT_DAYS * 86_400)
    assert (await histogram_of(store)).sum() > 0

    async def rows() -> list[int]:
        async with store.reading() as connection:
            tables = (replay_days, replay_budgets, replay_buckets)
            return [len((await connection.execute(select(table))).all()) for table in tables]

    assert await rows() == [1, 1, 1]
    await forget_old(store, LATER_S + (builder.KEPT_DAYS + 2) * 86_400)
    assert await rows() == [0, 0, 0]


async def test_the_history_gets_what_came_in_the_day_after_a_change(store) -> None:
    await change_settings(store, "default", GroupSettings(false_alarms_per_day=2.0))
    await change_settings(store, "default", GroupSettings(false_alarms_per_day=3.0))
    await judged(store, [0.01], decision=Decision.ANOMALOUS, at_s=NOW_S - 3000)
    await judged(store, [1e-7], source_id="b", route=Route.ALARM, decision=Decision.ANOMALOUS, at_s=NOW_S - 3000)
    await build_items(store, now_s=LATER_S)
    async with store.writing() as connection:
        first = select(group_changes.c.number).order_by(group_changes.c.number).limit(1).scalar_subquery()
        at = update(group_changes)
        await connection.execute(at.values(at_s=NOW_S - 7200))
        await connection.execute(at.where(group_changes.c.number == first).values(at_s=NOW_S - 7300))
    assert await note_outcomes(store, NOW_S) == 0, "a day has not passed"
    assert await note_outcomes(store, NOW_S + 86_400) == 2
    assert await note_outcomes(store, NOW_S + 86_400) == 0
    async with store.reading() as connection:
        newest, oldest = await changes_of(connection, "default")
    assert newest.outcome == {"hours": 24.0, "items_per_day": 2.0, "alarm_items_per_day": 1.0}
    assert oldest.outcome is not None
    assert (oldest.outcome["items_per_day"], round(oldest.outcome["hours"] * 3600)) == (None, 100)


@only_sqlite
async def test_a_store_without_heartbeats_of_a_group_has_no_rates(store) -> None:
    await judged(store, [0.01])
    await count_verdicts(store, now_s=LATER_S)
    async with store.writing() as connection:
        await connection.execute(delete(heartbeat_history))
    async with store.reading() as connection:
        week = await read_week(connection, "default", LATER_S)
    assert week is not None
    assert forecast_of(week, GroupSettings()).trust is Trust.UNKNOWN
