"""Forecasts agree with the alarms of another setting: exactly where samples were sent, else within the interval."""

from dataclasses import replace

import numpy as np
import pytest

from cloud.thresholds.cells import BINS_PER_DECADE, BUDGETS_PER_S, Buckets, bins_of, cut_of
from cloud.thresholds.figures import Trust
from cloud.thresholds.forecast import forecast_of
from cloud.thresholds.intervals import interval_of_sum
from cloud.thresholds.week import GroupWeek, ItemOfWeek, LabelledSample
from edge.token_bucket import TokenBucket
from shared.alarm_level import alarm_p_value, alarm_p_values
from shared.group_settings import GroupSettings
from tests.cloud.thresholds.simulated import SINCE_S, Simulated

FAST = Simulated(rate_per_s=0.3, false_alarms_per_day=20, odd=400)


@pytest.fixture(scope="module")
def fast() -> GroupWeek:
    return FAST.week(false_alarms_per_day=20.0)


@pytest.mark.parametrize("setting", [0.1, 1.0, 5.0, 20.0, 100.0, 1000.0])
def test_alarms_are_counted_where_every_sample_was_sent(fast: GroupWeek, setting: float) -> None:
    found = forecast_of(fast, GroupSettings(false_alarms_per_day=setting))
    figures = found.proposed
    assert found.trust is Trust.EXACT
    assert figures.alarms_low == figures.alarms_per_day == figures.alarms_high
    width = 10 ** (0.51 / BINS_PER_DECADE)  # half of a bin
    below, above = FAST.alarms_per_day(setting / width), FAST.alarms_per_day(setting * width)
    assert below <= figures.alarms_per_day <= above
    assert found.sentences[0].startswith("Exact")
    assert 0.9 < found.exact_up_to / (0.05 * FAST.rate_per_s * 86_400) <= 1.01


def test_beyond_the_coverage_audits_give_an_interval_that_holds_the_truth() -> None:
    held = 0
    for seed in range(40):
        slow = Simulated(rate_per_s=0.02, audit_share=0.05, seed=seed)
        found = forecast_of(slow.week(audit_share=0.05), GroupSettings(false_alarms_per_day=500.0))
        assert found.trust is Trust.ESTIMATE
        figures = found.proposed
        assert figures.alarms_low < figures.alarms_per_day < figures.alarms_high
        held += figures.alarms_low <= slow.alarms_per_day(500.0) <= figures.alarms_high
    assert held >= 35  # of 40 with 95 %: fewer with a probability of 0.003
    assert "audits among them give" in found.sentences[0]
    assert figures.alarms_per_day == pytest.approx(slow.alarms_per_day(500.0), rel=0.5)


def test_with_few_audits_it_says_that_it_cannot_say_and_what_to_do() -> None:
    slow = Simulated(rate_per_s=0.02, audit_share=0.0005)
    found = forecast_of(slow.week(audit_share=0.0005), GroupSettings(false_alarms_per_day=500.0))
    assert found.trust is Trust.UNKNOWN
    assert "It cannot be said" in found.sentences[0]
    assert "Raise the audit share from 0.05 % to" in found.sentences[0]
    assert found.proposed.alarms_per_day >= found.present.alarms_per_day


def test_without_heartbeats_the_rate_is_unknown_and_no_alarm_is_made_up(fast: GroupWeek) -> None:
    (device,) = fast.devices
    silent = replace(fast, devices=[replace(device, screened=0, active_s=0.0, observed_s=0.0)])
    found = forecast_of(silent, GroupSettings(false_alarms_per_day=1000.0))
    assert found.trust is Trust.UNKNOWN
    assert "two heartbeats" in found.sentences[0]
    assert found.proposed.alarms_per_day == 0


def test_labelled_samples_and_items_follow_the_level(fast: GroupWeek) -> None:
    per_day = FAST.rate_per_s * 86_400
    labelled = [
        LabelledSample("a", 0, "line", 1e-7, True, 1000),
        LabelledSample("b", 0, "line", 10 / per_day, True, 1000),  # an alarm from 10 a day on
        LabelledSample("c", 0, "line", 15 / per_day, False, 1000),
        LabelledSample("d", 0, "line", 50 / per_day, True, 1001),
        LabelledSample("e", 0, "new source", 1e-9, True, 1001),
    ]
    items = [
        ItemOfWeek(0, "line", 10 / per_day, is_alarm=False, can_alarm=True),
        ItemOfWeek(0, "line", 10 / per_day, is_alarm=False, can_alarm=False),
        ItemOfWeek(0, "line", 0.04, is_alarm=True, can_alarm=True),
    ]
    week = replace(fast, labelled=labelled, items=items, items_total=6)
    strict = forecast_of(week, GroupSettings(false_alarms_per_day=1.0))
    assert (strict.reals, strict.false_alarms) == (4, 1)
    figures = strict.proposed
    assert (figures.reals_alarmed, figures.reals_lost, figures.false_alarms_gone) == (1, 1, 1)
    assert figures.alarm_items_per_day == pytest.approx(2 / 7)
    assert strict.present.alarm_items_per_day == pytest.approx(4 / 7)
    assert figures.items_per_day == strict.present.items_per_day == pytest.approx(6 / 7)
    lax = forecast_of(week, GroupSettings(false_alarms_per_day=100.0)).proposed
    assert (lax.reals_lost, lax.reals_gained) == (0, 1)
    marks = {mark.sample_id: mark.setting for mark in strict.marks}
    assert set(marks) == {"a", "b", "c", "d"}
    assert marks["b"] == pytest.approx(10, rel=0.05)


def test_a_smaller_upload_is_replayed_and_a_larger_one_is_not_known(fast: GroupWeek) -> None:
    losses = {(0, 1000): np.arange(len(BUDGETS_PER_S) + 1) < 20}
    labelled = [LabelledSample("a", 0, "line", 1e-7, True, 1000)]
    week = replace(fast, losses=losses, labelled=labelled)
    sent = (FAST.routes > 0).sum() / 7
    small = forecast_of(week, GroupSettings(max_samples_per_s=1e-3))
    assert 0.9 * 86.4 < small.proposed.samples_per_day < 1.01 * 86.4  # a bucket of one token is full for some time
    assert small.proposed.bytes_per_day == pytest.approx(1000 * small.proposed.samples_per_day)
    assert (small.proposed.reals_at_risk, small.present.reals_at_risk) == (1, 0)
    assert small.present.samples_per_day == pytest.approx(sent)
    assert small.upload_trust is Trust.EXACT
    curve = small.upload_curve
    assert curve.settings[-1] == 0
    assert curve.samples == sorted(curve.samples)
    assert curve.samples[-1] == pytest.approx(sent, rel=1e-3)
    (device,) = week.devices
    bound = replace(week, devices=[replace(device, in_force={"max_samples_per_s": 0.01})])
    larger = forecast_of(bound, GroupSettings(max_samples_per_s=0.0))
    assert larger.upload_trust is Trust.UNKNOWN
    assert any("larger upload" in text for text in larger.sentences)


def test_an_empty_group_has_a_forecast_of_nothing() -> None:
    (device,) = Simulated(rate_per_s=0.001).week().devices
    empty = GroupWeek(SINCE_S, SINCE_S + 10, GroupSettings(), [device], [], [], [], 0, {})
    labelled = [LabelledSample("a", 0, "line", 1e-7, True, 1000)]
    found = forecast_of(replace(empty, labelled=labelled), GroupSettings(false_alarms_per_day=3.0))
    assert found.proposed.alarms_per_day == 0
    assert found.trust is Trust.UNKNOWN


def test_buckets_work_as_those_of_a_device() -> None:
    now_s = 0.0
    ours, rates = Buckets(), BUDGETS_PER_S[::8]
    theirs = [TokenBucket(float(rate), 10.0, lambda: now_s) for rate in rates]
    random = np.random.default_rng(3)
    for gap_s in random.exponential(2.0, 500):
        now_s += gap_s
        expected = [bucket.level() >= 1.0 for bucket in theirs]
        for bucket, passes in zip(theirs, expected, strict=True):
            bucket.spend(float(passes))
        assert ours.spend(now_s)[::8].tolist() == expected
        ours = Buckets(ours.at_s, ours.levels())  # as over a restart


def test_bins_hold_the_edges_and_hostile_values() -> None:
    assert bins_of([1.0, 0.1, 1e-12, 0.0, -1.0, float("nan"), 5.0]).tolist() == [0, 50, 600, 600, 600, 600, 0]
    assert cut_of([1.0, 0.1, 1e-30, 0.0]).tolist() == [0, 50, 601, 601]


def test_levels_of_many_sources_are_those_of_the_router() -> None:
    wanted, rates = np.array([[0.0], [0.5], [1e6]]), np.array([0.0, 1e-7, 0.3, 40.0])
    expected = [[alarm_p_value(each, rate) for rate in rates.tolist()] for each in wanted[:, 0].tolist()]
    assert alarm_p_values(wanted, rates).tolist() == expected


def test_the_interval_of_nothing_begins_at_0_and_of_many_is_narrow() -> None:
    low, high = interval_of_sum(np.array([0.0, 1e6]), np.array([0.0, 1e8]), 100.0)
    assert (low[0], high[0]) == (0.0, pytest.approx(368.9, rel=1e-3))  # no count: at most 3.69 of them
    assert low[1] == pytest.approx(980_500, rel=1e-3)
    assert high[1] == pytest.approx(1_019_800, rel=1e-3)
