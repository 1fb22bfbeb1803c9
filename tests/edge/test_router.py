"""The budget holds for every input, the lowest p-values travel first, audits are unbiased."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.audit_reserve import BORROWED_AUDITS
from edge.routing.budget import UploadBudget
from edge.routing.router import ACCEPT, ALARM, AUDIT, FORWARD, RateMeter, Router, Routing
from edge.settings import RouterSettings
from tests.edge.clock import Clock


def router_for(clock: Clock, rate_per_s: float = 10.0, **settings: object) -> tuple[Router, UploadBudget]:
    chosen = RouterSettings.model_validate({"seed": 0} | settings)
    budget = UploadBudget(chosen, clock)
    return Router(chosen, "plant", RateMeter(rate_per_s, clock), budget), budget


def route(router: Router, p_values: np.ndarray, sizes_bytes: np.ndarray) -> Routing:
    """Route a batch whose samples cost `sizes_bytes` (batch,) to send."""
    selection = router.select(p_values)
    return router.grant(selection, sizes_bytes[selection.candidates])


def uniform(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1e-6, 1.0, count)


arrivals = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 60), st.integers(0, 2**32 - 1)), min_size=1, max_size=30)


@given(arrivals, st.floats(0.2, 20), st.floats(100, 5000), st.sampled_from(["cascade", "cloud_only"]))
def test_over_any_arrivals_the_budget_holds(
    pattern: list[tuple[float, int, int]], samples_per_s: float, bytes_per_s: float, mode: str
) -> None:
    clock = Clock()
    router, _ = router_for(
        clock, max_samples_per_s=samples_per_s, max_bytes_per_s=bytes_per_s, burst_s=5, mode=mode, audit_share=0.2
    )
    sent, sent_bytes, largest = 0, 0.0, 0.0
    for wait_s, count, seed in pattern:
        clock.now += wait_s
        sizes = np.random.default_rng(seed).integers(10, 2000, count).astype(float)
        routing = route(router, uniform(count, seed), sizes)
        sent += int(routing.travels.sum())
        sent_bytes += float(sizes[routing.travels].sum())
        largest = max([largest, *sizes])
    borrowed = BORROWED_AUDITS if mode == "cascade" else 0  # audits that a small bucket lends
    assert sent <= samples_per_s * clock.now + max(5 * samples_per_s, 1) + borrowed + 1e-6
    assert sent_bytes <= bytes_per_s * clock.now + 5 * bytes_per_s + largest + 1e-6


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_the_lowest_p_values_travel_and_the_rest_does_not_count_as_normal(count: int, seed: int, budget: int) -> None:
    router, _ = router_for(Clock(), max_samples_per_s=budget / 10, burst_s=10, forward_p_value=0.5, audit_share=0)
    p_values = uniform(count, seed)
    routing = route(router, p_values, np.ones(count))
    suspicious = p_values <= 0.5
    assert routing.travels.sum() == min(budget, suspicious.sum())
    if routing.held.any():
        assert p_values[routing.travels].max() <= p_values[routing.held].min()
    np.testing.assert_array_equal(routing.travels | routing.held, suspicious)
    assert not (routing.held & (p_values > 0.5)).any()


@pytest.mark.parametrize(
    ("rate", "budget_per_s"), [(1000, 60.0), (20, 0.5), (20, 4.0)], ids=["wide", "below a token", "short"]
)
def test_audits_keep_their_share_while_suspicious_samples_use_up_the_budget(rate: int, budget_per_s: float) -> None:
    """Half of the samples are suspicious, far more than the budget carries."""
    clock = Clock()
    router, budget = router_for(clock, rate, max_samples_per_s=budget_per_s, burst_s=1, audit_share=0.02)
    audited: list[float] = []
    p_values = np.concatenate([uniform(100_000), uniform(100_000, 1) * 0.05])
    np.random.default_rng(2).shuffle(p_values)
    held = 0
    share = router.settings.audit_share * (0.5 if budget_per_s == 0.5 else 1.0)
    for start in range(0, len(p_values), rate):
        clock.now += 1.0
        part = p_values[start : start + rate]
        routing = route(router, part, np.ones(rate))
        audited += part[routing.codes == AUDIT].tolist()
        held += int(routing.held.sum())
        assert routing.probability == share
    assert held > 50_000
    accepted = np.count_nonzero(p_values > 0.05)
    assert len(audited) == pytest.approx(share * accepted, rel=0.1)
    # Whatever looks normal is as likely to be audited: p-values of audits are uniform over the accepted range.
    counts, _ = np.histogram(audited, bins=5, range=(0.05, 1.0))
    assert counts.min() > 0.8 * len(audited) / 5
    assert ("raise max_samples_per_s to 0.8, or lower audit_share" in budget.shortage()) == (share < 0.02)


def test_drawn_suspicious_samples_travel_with_the_same_probability_however_short_the_budget_is() -> None:
    clock = Clock()
    router, _ = router_for(clock, 1000, max_samples_per_s=60, burst_s=1, audit_share=0.02)
    drawn, certain = 0, 0
    for seed in range(200):
        clock.now += 1.0
        routing = route(router, uniform(1000, seed) * 0.05, np.ones(1000))
        drawn += int(np.count_nonzero(routing.drawn))
        certain += int(np.count_nonzero(routing.certain))
    assert drawn == pytest.approx(0.02 * 200_000, rel=0.05)
    assert not certain


def test_whether_a_sample_is_certain_to_travel_does_not_depend_on_its_own_draw() -> None:
    """The bucket holds 8 samples and keeps a little more than 4 for audits, which drawn samples may use."""
    for suspicious, is_certain in ((3, True), (4, False)):
        certain, drawn = set(), 0
        for seed in range(40):
            router, _ = router_for(Clock(), 0.001, max_samples_per_s=8, burst_s=1, audit_share=0.3, seed=seed)
            routing = route(router, np.full(suspicious, 0.01), np.ones(suspicious))
            assert routing.certain is not None
            certain |= set(routing.certain.tolist())
            drawn += int(np.count_nonzero(routing.drawn))
        assert certain == {is_certain}
        assert drawn > 20


def test_audits_repeat_with_the_seed_alone_and_differ_between_sources() -> None:
    p_values = np.full(2000, 0.5)

    def audits(source: str, seed: int | None) -> list[int]:
        settings = RouterSettings(seed=seed)
        router = Router(settings, source, RateMeter(1.0), UploadBudget(settings))
        return np.flatnonzero(route(router, p_values, np.ones(2000)).codes == AUDIT).tolist()

    assert audits("a", 1) == audits("a", 1)
    assert audits("a", 1) != audits("b", 1)
    assert audits("a", 1) != audits("a", 2)
    assert audits("a", None) != audits("a", None), "a start must not repeat the draws of the one before"


def test_false_alarms_per_day_sets_the_alarm_level() -> None:
    router, _ = router_for(Clock(), rate_per_s=10.0, false_alarms_per_day=86.4)
    assert router.alarm_p_value(10.0) == pytest.approx(1e-4)
    routing = route(router, np.array([5e-5, 2e-4, 0.2]), np.ones(3))
    assert routing.codes.tolist()[:2] == [ALARM, FORWARD]
    assert router.alarm_p_value(0.0) == 0.0  # an unknown rate raises none


def test_an_event_in_the_first_second_of_an_unmeasured_source_raises_an_alarm() -> None:
    clock = Clock()
    router, _ = router_for(clock, rate_per_s=0.0, false_alarms_per_day=10)
    assert route(router, np.array([1e-6, 0.2]), np.ones(2)).codes.tolist() == [ALARM, ACCEPT]
    assert router.alarm_level.p_value == pytest.approx(10 / 86_400 / 2)
    assert router.alarm_level.rate_per_s == 0.0  # the rate itself is unknown
    clock.now += 0.5
    route(router, uniform(998), np.ones(998))
    assert router.alarm_level.p_value == pytest.approx(
        10 / 86_400 / 1000
    )  # no more false alarms than the rate asks for
    clock.now += 9.5
    route(router, uniform(2), np.ones(2))
    assert router.alarm_level.p_value == pytest.approx(10 / 86_400 / 100)
    assert router.alarm_level.rate_per_s == 100.0


def test_the_rate_of_a_source_is_measured_where_it_is_not_configured() -> None:
    clock = Clock()
    meter = RateMeter(0.0, clock)
    assert meter.observe(100) == 0.0
    for _ in range(300):
        clock.now += 1.0
        rate = meter.observe(50)
    assert rate == pytest.approx(50, rel=0.1)
    for _ in range(300):
        clock.now += 1.0
        rate = meter.observe(5)
    assert rate == pytest.approx(5, rel=0.1)


def test_edge_only_sends_nothing_and_holds_the_suspicious() -> None:
    router, _ = router_for(Clock(), mode="edge_only", audit_share=0.5)
    routing = route(router, np.array([1e-9, 0.01, 0.5]), np.ones(3))
    assert not routing.travels.any()
    assert routing.codes.tolist() == [ALARM, ACCEPT, ACCEPT]
    assert routing.held.tolist() == [False, True, False]


def test_cloud_only_sends_everything() -> None:
    router, _ = router_for(Clock(), mode="cloud_only", audit_share=0)
    routing = route(router, np.array([1e-9, 0.01, 0.5]), np.ones(3))
    assert routing.travels.all()
    assert routing.codes.tolist() == [ALARM, FORWARD, ACCEPT]


def test_a_sample_larger_than_the_bucket_passes_once_and_is_paid_back() -> None:
    clock = Clock()
    router, _ = router_for(clock, max_bytes_per_s=100, burst_s=1, audit_share=0)
    p = np.array([1e-3])
    assert route(router, p, np.array([1000.0])).travels.all()
    clock.now += 5
    assert not route(router, p, np.array([10.0])).travels.any()
    clock.now += 5
    assert route(router, p, np.array([10.0])).travels.all()


def test_sizes_that_were_estimated_are_corrected() -> None:
    clock = Clock()
    router, budget = router_for(clock, max_bytes_per_s=100, burst_s=1, audit_share=0)
    assert route(router, np.array([1e-3]), np.array([100.0])).travels.all()
    budget.correct(-90.0)
    assert route(router, np.array([1e-3]), np.array([80.0])).travels.all()


def test_the_time_a_source_waits_for_its_bundle_is_no_part_of_its_rate() -> None:
    clock = Clock()
    meter = RateMeter(0.0, clock)
    clock.now += 3600
    assert meter.observe(256) == 0
    clock.now += 2
    assert meter.observe(200) == pytest.approx(100)


def test_audits_wait_for_the_link_in_an_order_that_their_p_values_do_not_decide() -> None:
    router, _ = router_for(Clock(), audit_share=0.1)
    p_values = uniform(50_000)
    routing = route(router, p_values, np.ones(50_000))
    audits = routing.codes == AUDIT
    np.testing.assert_array_equal(routing.priorities[~audits], p_values[~audits])
    assert routing.priorities[audits].min() >= 0
    assert routing.priorities[audits].max() <= 0.05  # they have their share of a line that is too narrow for all
    ranks = [array.argsort().argsort() for array in (p_values[audits], routing.priorities[audits])]
    assert abs(np.corrcoef(ranks)[0, 1]) < 0.05
    counts, _ = np.histogram(routing.priorities[audits], bins=5, range=(0, 0.05))
    assert counts.min() > 0.8 * counts.mean()
