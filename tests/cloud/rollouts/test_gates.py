"""Gates halt bad bundles, pass good ones, and otherwise wait."""

from dataclasses import astuple, replace
from functools import reduce

import pytest

from cloud.rollouts.gates import GateFigures, Outcome, all_passed, gates, halting
from cloud.rollouts.limits import GateLimit, RolloutLimits
from cloud.rollouts.observation import Observation, ScreeningCounts, Tally, total
from cloud.rollouts.phases import ACTIVE, TRANSITIONS, RolloutEvent, RolloutPhase, following
from cloud.rollouts.stages import Stage, parse_stages
from shared.errors import RolloutError, SettingsError
from shared.status import HeartbeatCounters

STAGE = Stage(name="trial", devices=("press-1",), least_s=60, least_samples=100)
USUAL = ScreeningCounts(20_000, 1000, 20)


def observed(new: ScreeningCounts, **changes: object) -> Observation:
    values: dict[str, object] = {
        "stage_s": 61.0,
        "stage_samples": new.screened,
        "wanted": 5,
        "running": 5,
        "others": 40,
        "new": new,
        "before": USUAL,
        "rest": USUAL,
    }
    found = Observation(**(values | changes))
    each = ScreeningCounts(*(count / max(1, found.running) for count in astuple(new)))
    tally = Tally(*(count // max(1, found.running) for count in astuple(found.new_verdicts)))
    even = {"new_by_device": [each] * found.running, "new_verdicts_by_device": [tally] * found.running}
    return replace(found, **{name: value for name, value in even.items() if name not in changes})


def outcomes(seen: Observation) -> dict[str, Outcome]:
    return {result.gate: result.outcome for result in gates(STAGE, seen)}


def test_a_bundle_like_the_one_before_passes_all_gates():
    results = gates(
        STAGE,
        observed(
            ScreeningCounts(2000, 100, 2), new_verdicts=Tally(100, 30, 20, 1), old_verdicts=Tally(900, 300, 200, 9)
        ),
    )
    assert all_passed(results), results


def test_a_flood_halts_and_the_sentence_has_the_figures():
    results = gates(STAGE, observed(ScreeningCounts(400, 400, 0)))
    assert halting(results).startswith("100.0 % of the samples were forwarded (400 of 400)")
    assert "5.0 % on the same devices before (1000 of 20000)" in halting(results)


@pytest.mark.parametrize("forwarded", [0, 1, 2, 3])
def test_three_samples_neither_halt_nor_pass(forwarded):
    assert outcomes(observed(ScreeningCounts(3, forwarded, 0)))["forwarded share"] is Outcome.WAITING


def test_no_samples_pass_no_share_even_without_anything_to_compare_with():
    seen = observed(ScreeningCounts(), before=ScreeningCounts(), rest=ScreeningCounts())
    assert {outcomes(seen)[name] for name in ("forwarded share", "alarmed share")} == {Outcome.WAITING}
    first = observed(ScreeningCounts(100, 100, 0), before=ScreeningCounts(), rest=ScreeningCounts())
    assert outcomes(first)["forwarded share"] is Outcome.PASSED


def test_a_change_of_all_data_is_not_the_fault_of_the_bundle():
    odd_day = ScreeningCounts(20_000, 9000, 20)
    assert outcomes(observed(ScreeningCounts(2000, 900, 2)))["forwarded share"] is Outcome.FAILED
    assert outcomes(observed(ScreeningCounts(2000, 900, 2), rest=odd_day))["forwarded share"] is Outcome.PASSED
    assert outcomes(observed(ScreeningCounts(2000, 900, 2), before=odd_day))["forwarded share"] is Outcome.PASSED


def test_alarms_disagreement_and_audit_misses_halt():
    old = Tally(1000, 300, 500, 5)
    assert outcomes(observed(ScreeningCounts(2000, 100, 100)))["alarmed share"] is Outcome.FAILED
    dismissed = observed(ScreeningCounts(2000, 100, 2), new_verdicts=Tally(200, 198, 10, 0), old_verdicts=old)
    assert outcomes(dismissed)["agreement"] is Outcome.FAILED
    missed = observed(ScreeningCounts(2000, 100, 2), new_verdicts=Tally(100, 30, 200, 60), old_verdicts=old)
    assert outcomes(missed)["audit misses"] is Outcome.FAILED
    few = observed(ScreeningCounts(2000, 100, 2), new_verdicts=Tally(1, 1, 1, 1), old_verdicts=old)
    assert {outcomes(few)[name] for name in ("agreement", "audit misses")} == {Outcome.PASSED}


def test_devices_that_cannot_use_the_bundle_halt_and_late_ones_hold_the_stage():
    good = ScreeningCounts(2000, 100, 2)
    assert outcomes(observed(good, failed=["press-1", "press-2"]))["swaps"] is Outcome.FAILED
    assert outcomes(observed(good, wanted=100, running=95, failed=["press-1"]))["swaps"] is Outcome.PASSED
    assert outcomes(observed(good, running=3))["swaps"] is Outcome.WAITING
    assert outcomes(observed(good, wanted=0, running=0))["swaps"] is Outcome.WAITING
    silent = observed(good, wanted=40, running=40, unhealthy=["press"] * 30)
    assert outcomes(silent)["device health"] is Outcome.FAILED


def test_one_device_of_a_small_stage_halts_nothing_alone():
    good, odd = ScreeningCounts(400, 20, 0), ScreeningCounts(400, 400, 400)
    for others, outcome in (([good] * 4, Outcome.WAITING), ([good] * 3 + [odd], Outcome.FAILED)):
        each = [odd, *others]
        found = outcomes(observed(total(each), new_by_device=each))
        assert {found[name] for name in ("forwarded share", "alarmed share")} == {outcome}
    alone = observed(odd, wanted=1, running=1, new_by_device=[odd])  # it is the whole stage
    assert outcomes(alone)["forwarded share"] is Outcome.FAILED
    first = observed(odd, wanted=2, running=1, new_by_device=[odd])
    assert outcomes(first)["forwarded share"] is Outcome.WAITING
    assert outcomes(observed(good, running=4, failed=["press-1"]))["swaps"] is Outcome.PASSED
    assert outcomes(observed(good, wanted=3, running=2, failed=["press-1"]))["swaps"] is Outcome.WAITING
    assert outcomes(observed(good, wanted=1, running=0, failed=["press-1"]))["swaps"] is Outcome.FAILED
    liar = observed(good, wanted=2, running=1, new_verdicts=Tally(200, 198, 0, 0), old_verdicts=Tally(1000, 300, 0, 0))
    assert outcomes(liar)["agreement"] is Outcome.WAITING


@pytest.mark.parametrize(
    ("gate", "odd", "good"),
    [
        ("agreement", Tally(4000, 3980, 0, 0), Tally(50, 15, 0, 0)),
        ("audit misses", Tally(0, 0, 4000, 3980), Tally(0, 0, 50, 1)),
    ],
)
def test_one_device_with_most_verdicts_halts_nothing_alone(gate, odd, good):
    usual, old = ScreeningCounts(2000, 100, 2), Tally(1000, 300, 1000, 10)

    def outcome(each: list[Tally], **changes: object) -> Outcome:
        verdicts = {"new_verdicts": reduce(Tally.plus, each), "new_verdicts_by_device": each, "old_verdicts": old}
        return outcomes(observed(usual, **verdicts, **changes))[gate]

    assert outcome([odd, good, good, good, good]) is Outcome.WAITING
    assert outcome([odd, odd, good, good, good]) is Outcome.FAILED
    assert outcome([odd], wanted=1, running=1) is Outcome.FAILED  # it is the whole stage


def test_limits_of_a_rollout_replace_the_defaults():
    flood = observed(ScreeningCounts(2000, 900, 0))
    assert outcomes(flood)["forwarded share"] is Outcome.FAILED
    wide = RolloutLimits(max_forwarded=GateLimit.parse("10x + 20%"), max_failed=0.5)
    found = {result.gate: result for result in gates(STAGE, replace(flood, failed=["a", "b"]), wide)}
    assert found["forwarded share"].outcome is Outcome.PASSED
    assert "at most 10 times as much plus 20 %" in found["forwarded share"].text
    assert found["swaps"].outcome is Outcome.PASSED
    assert RolloutLimits.model_validate_json(wide.model_dump_json()) == wide
    for text in ("2", "2x", "-1x+2%", "2x+200%", "1e9x+1%", "nanx+1%"):
        with pytest.raises(SettingsError, match="not a limit"):
            GateLimit.parse(text)


def test_a_stage_lasts_its_time_and_its_samples():
    good = ScreeningCounts(2000, 100, 2)
    assert outcomes(observed(good, stage_s=59.0))["duration"] is Outcome.WAITING
    assert outcomes(observed(good, stage_samples=99))["duration"] is Outcome.WAITING


def test_one_device_cannot_speak_for_all():
    """A device may claim any counters; its weight is bounded by that of the others."""
    honest = [ScreeningCounts(100, 5, 0)] * 9
    summed = total([*honest, ScreeningCounts(2.0**63, 2.0**63, 0)])
    assert summed.screened == pytest.approx(1900)
    assert ScreeningCounts.of(HeartbeatCounters(samples_screened=10, samples_forwarded=99)).forwarded == 10


def test_counts_since_a_restart_from_zero_are_all_of_them():
    assert ScreeningCounts(100, 7, 1).since(ScreeningCounts(60, 5, 1)) == ScreeningCounts(40, 2, 0)
    assert ScreeningCounts(10, 7, 1).since(ScreeningCounts(60, 5, 1)) == ScreeningCounts(10, 7, 1)


def test_the_machine_ends_and_refuses_what_a_phase_does_not_take():
    assert {phase for phase, _ in TRANSITIONS} == set(ACTIVE)
    assert following(RolloutPhase.PAUSED, RolloutEvent.FAILED) is RolloutPhase.HALTED
    with pytest.raises(RolloutError, match="paused does not take 'gates passed'"):
        following(RolloutPhase.PAUSED, RolloutEvent.PASSED)


def test_stages_grow_and_a_device_keeps_its_place():
    stages = parse_stages("trial=press-1, press-2", "10,50,100", least_s=5, least_samples=7)
    assert [stage.name for stage in stages] == ["trial", "wave 10 %", "wave 50 %", "wave 100 %"]
    assert stages[0].devices == ("press-1", "press-2")
    ids = [f"press-{number}" for number in range(2000)]
    members = [{each for each in ids if stage.includes(each, "press-2-0badcafe")} for stage in stages[1:]]
    assert members[0] < members[1] < members[2] == set(ids)
    assert len(members[0]) == pytest.approx(200, abs=60)
    assert members[0] != {each for each in ids if stages[1].includes(each, "press-3-0badcafe")}
    assert parse_stages("trial=5%", "100", least_s=0, least_samples=0)[0].percent == 5


@pytest.mark.parametrize(
    ("trial", "waves"),
    [
        ("", "10,50"),
        ("", "50,10,100"),
        ("", "x"),
        ("", "10,10,100"),
        ("wave=a", "100"),
        ("trial=", "100"),
        ("trial=20%", "10,100"),
    ],
)
def test_stages_that_cannot_be_are_refused(trial, waves):
    with pytest.raises(SettingsError):
        parse_stages(trial, waves, least_s=0, least_samples=0)


def figures(seen: Observation, gate: str) -> GateFigures:
    (found,) = [result.figures for result in gates(STAGE, seen) if result.gate == gate]
    assert found is not None
    return found


def test_a_gate_says_how_many_samples_it_lacks_and_how_long_they_take():
    seen = observed(ScreeningCounts(600, 36, 0), stage_s=30.0)  # 20 samples a second
    forwarded = figures(seen, "forwarded share")
    assert (forwarded.value, forwarded.count, forwarded.unit) == (0.06, 600, "samples")
    assert forwarded.low < 0.06 < forwarded.high
    assert forwarded.limit == pytest.approx(2 * 0.05 + 0.02)
    assert forwarded.needed is not None
    assert forwarded.needed > 600
    assert forwarded.remaining_s == pytest.approx((forwarded.needed - 600) / 20)
    enough = ScreeningCounts(forwarded.needed, 0.06 * forwarded.needed, 0)
    assert outcomes(observed(enough))["forwarded share"] is Outcome.PASSED
    assert outcomes(observed(ScreeningCounts(0.9 * forwarded.needed, 0.054 * forwarded.needed, 0)))[
        "forwarded share"
    ] is (Outcome.WAITING)


def test_a_share_at_its_limit_is_never_promised_to_pass():
    at_limit = figures(observed(ScreeningCounts(500, 70, 0)), "forwarded share")
    assert (at_limit.needed, at_limit.remaining_s) == (None, None)
    lacking = figures(observed(ScreeningCounts(50, 2, 0), stage_s=10.0), "duration")
    assert (lacking.count, lacking.needed) == (50, 100)
    assert lacking.remaining_s == 50.0, "the seconds take longer than the samples"
    unknown = figures(observed(ScreeningCounts(0, 0, 0)), "duration")
    assert unknown.remaining_s is None
