"""Devices under drift: p-values that follow cleared samples, limits, restarts, and the named cause of a drift."""

import uuid
from pathlib import Path

import numpy as np
import pytest

from edge.routing.calibration_follower import MAX_EXPECTED, CalibrationFollower
from edge.routing.drift_watch import DriftWatch
from edge.routing.router import ACCEPT, ALARM, AUDIT, FORWARD
from edge.screener import ScreenedBatch, Screener, load_screener
from edge.settings import DriftSettings
from shared.adaptive_calibration import AdaptationLimits
from shared.bundle import Bundle
from shared.modality import Modality
from shared.samples import Decision, SampleBatch, Verdict
from tests.edge.bundles import normal_rows

BATCH, LIMITS = 100, AdaptationLimits(memory=1000.0)
MEAN = np.array([20.0, 5.0, 100.0])


@pytest.fixture(scope="module")
def screener(tabular: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Screener:
    return load_screener(tabular, "int8_onnxruntime", BATCH, tmp_path_factory.mktemp("engine"))


def batch_of(rows: np.ndarray) -> SampleBatch:
    origins = [f"r:{n}" for n in range(len(rows))]
    return SampleBatch("plant", Modality.TABULAR, rows.astype(np.float32), np.full(len(rows), 1.7e9), origins)


def wider(count: int, factor: float, seed: int = 0) -> np.ndarray:
    """Rows that vary more than those of training."""
    return MEAN + factor * (normal_rows(count, seed) - MEAN)


def follower(folder: Path, **changes: object) -> CalibrationFollower:
    return CalibrationFollower("plant", folder, DriftSettings.model_validate({"mode": "adapt"} | changes), LIMITS)


def run(
    of: CalibrationFollower, screener: Screener, rows: np.ndarray, decision: Decision | None = Decision.NORMAL
) -> list[ScreenedBatch]:
    """Screen rows in batches; suspicious ones are sent, and get a verdict before the next batch."""
    found = []
    for part in np.array_split(rows, max(1, len(rows) // BATCH)):
        screened = of.adapt(screener.screen(batch_of(part)), screener, 0.0)
        sent = {int(place): uuid.uuid4() for place in np.flatnonzero(screened.p_values <= LIMITS.withheld_p)}
        codes = np.where(screened.p_values <= 0.001, ALARM, np.where(screened.p_values <= 0.05, FORWARD, ACCEPT))
        of.expect(sent, codes.astype(np.int8), 0.01)
        if decision is not None:
            of.learn([Verdict(sample_id, decision) for sample_id in sent.values()])
        found.append(screened)
    return found


def alarm_share(batches: list[ScreenedBatch]) -> float:
    return float(np.mean(np.concatenate([batch.p_values for batch in batches]) <= 0.01))


def test_false_alarms_return_to_the_promise_where_the_cloud_clears_them(screener: Screener, tmp_path: Path) -> None:
    rows = wider(6000, 1.5, 3)
    off, adapting = follower(tmp_path, mode="warn"), follower(tmp_path)
    assert alarm_share(run(off, screener, rows)) > 0.05
    batches = run(adapting, screener, rows)
    assert alarm_share(batches[20:]) < 0.02
    status = adapting.status()
    assert status.factor > 1.5
    assert status.since_s > 0
    assert status.cleared > 100
    assert off.status().factor == 1.0
    assert batches[-1].calibration_id.startswith(f"{screener.calibration_id}+")
    assert batches[0].calibration_id == screener.calibration_id


def test_a_fault_that_creeps_in_still_alarms(screener: Screener, tmp_path: Path) -> None:
    of, creep = follower(tmp_path), np.linspace(0.0, 8.0, 8000)[:, np.newaxis]
    batches = run(of, screener, normal_rows(8000, 4) + creep * np.array([1.0, 0.5, 10.0]), Decision.ANOMALOUS)
    assert alarm_share(batches[-10:]) > 0.99
    assert of.status().factor <= 5.0


def test_an_anomalous_audit_takes_out_the_samples_that_it_stands_for(screener: Screener, tmp_path: Path) -> None:
    shares = []
    for decision in (Decision.NORMAL, Decision.ANOMALOUS):
        of = follower(tmp_path)
        for part in np.array_split(wider(3000, 1.2, 5), 30):
            screened = of.adapt(screener.screen(batch_of(part)), screener, 0.0)
            audited = int(np.argsort(screened.p_values)[8])  # an accepted sample among the most suspicious
            sample_id = uuid.uuid4()
            of.expect({audited: sample_id}, np.full(len(part), AUDIT, np.int8), 0.1)
            of.learn([Verdict(sample_id, decision)])
        shares.append(float(np.mean(of.adapt(screener.screen(batch_of(wider(900, 1.2, 6))), screener, 0.0).p_values)))
    assert shares[1] < shares[0]


def weights_after(
    folder: Path, screener: Screener, code: int, decision: Decision | None, *, is_withheld: bool
) -> np.ndarray:
    """Return the weights (normal, cleared and withheld; bins) after a verdict on one sample of a batch."""
    of = follower(folder)
    screened = of.adapt(screener.screen(batch_of(wider(BATCH, 1.5, 5))), screener, 0.0)
    is_chosen = (screened.p_values <= LIMITS.withheld_p) == is_withheld
    place, sample_id = int(np.flatnonzero(is_chosen)[np.argmin(screened.p_values[is_chosen])]), uuid.uuid4()
    of.expect({place: sample_id}, np.full(BATCH, code, np.int8), 0.1)
    if decision is not None:
        of.learn([Verdict(sample_id, decision)])
    of.adapt(screener.screen(batch_of(wider(BATCH, 1.5, 6))), screener, 0.0)
    return of._by_mode[0].to_arrays()["weights"]


def test_a_forwarded_sample_that_is_not_withheld_counts_as_normal_once(screener: Screener, tmp_path: Path) -> None:
    waiting, normal, anomalous = (
        weights_after(tmp_path, screener, FORWARD, decision, is_withheld=False)
        for decision in (None, Decision.NORMAL, Decision.ANOMALOUS)
    )
    np.testing.assert_array_equal(normal, waiting)
    age = np.exp(-BATCH / LIMITS.memory)
    np.testing.assert_allclose((waiting - anomalous).sum(axis=1), [age, 0.0, 0.0], atol=1e-9)


def test_a_withheld_audit_takes_no_normal_sample_out(screener: Screener, tmp_path: Path) -> None:
    waiting, normal, anomalous = (
        weights_after(tmp_path, screener, AUDIT, decision, is_withheld=True)
        for decision in (None, Decision.NORMAL, Decision.ANOMALOUS)
    )
    np.testing.assert_array_equal(anomalous[:2], waiting[:2])
    np.testing.assert_array_equal(anomalous[2], normal[2])
    assert normal[2].sum() < waiting[2].sum()
    age = np.exp(-BATCH / LIMITS.memory)
    np.testing.assert_allclose((normal - waiting)[:2].sum(axis=1), [age, age], atol=1e-9)


def test_a_frozen_calibration_stays_where_it_is(screener: Screener, tmp_path: Path) -> None:
    of = follower(tmp_path)
    run(of, screener, wider(3000, 1.5, 3))
    of.settings = DriftSettings(mode="adapt", frozen=True)
    before = of.status().factor
    run(of, screener, wider(3000, 3.0, 4))
    assert of.status().factor == before > 1.5
    assert of.status().frozen


def test_a_restart_goes_on_and_takes_verdicts_on_samples_of_the_last_run(screener: Screener, tmp_path: Path) -> None:
    one = follower(tmp_path)
    run(one, screener, wider(3000, 1.5, 3))
    run(one, screener, wider(200, 1.5, 4), decision=None)
    waiting = list(one._sent)
    one.save()
    other = follower(tmp_path)
    other.begin(screener)
    assert other.status() == one.status()
    rows = batch_of(wider(BATCH, 1.5, 5))
    np.testing.assert_allclose(
        other.adapt(screener.screen(rows), screener, 0.0).p_values,
        one.adapt(screener.screen(rows), screener, 0.0).p_values,
        rtol=1e-6,
    )
    cleared = other.status().cleared
    other.learn([Verdict(uuid.UUID(bytes=key), Decision.NORMAL) for key in waiting])
    other.learn([Verdict(uuid.uuid4(), Decision.NORMAL) for _ in range(MAX_EXPECTED)])  # of a faster source
    other.adapt(screener.screen(rows), screener, 0.0)
    assert other.status().cleared == cleared + len(waiting) > cleared
    (tmp_path / "calibrations" / "plant.npz").write_bytes(b"damaged")
    fresh = follower(tmp_path)
    fresh.begin(screener)
    assert fresh.status().factor == 1.0


def test_another_calibration_starts_from_training(screener: Screener, tmp_path: Path) -> None:
    of = follower(tmp_path)
    run(of, screener, wider(3000, 1.5, 3))
    screened = screener.screen(batch_of(wider(BATCH, 1.5, 5)))
    of._calibration_id = "of an earlier bundle"
    adapted = of.adapt(screened, screener, 0.0)
    np.testing.assert_array_equal(adapted.p_values[:10], screened.p_values[:10])
    assert of.status().cleared == 0


def watch(folder: Path, screener: Screener, rows: np.ndarray) -> DriftWatch:
    of = DriftWatch("plant", folder)
    of.begin(screener)
    observe(of, screener, rows)
    return of


def observe(of: DriftWatch, screener: Screener, rows: np.ndarray) -> None:
    for part in np.array_split(rows, max(1, len(rows) // BATCH)):
        batch = batch_of(part)
        of.observe(batch, screener.screen(batch), screener, 1.0)


def test_a_stream_without_drift_has_no_finding(screener: Screener, tmp_path: Path) -> None:
    assert watch(tmp_path, screener, normal_rows(6000, 11)).finding == ""


def test_the_channel_that_drifts_is_named_and_a_restart_keeps_it(screener: Screener, tmp_path: Path) -> None:
    rows = normal_rows(4000, 12)
    rows[2000:, 2] += np.linspace(0.0, 15.0, 2000)
    of = watch(tmp_path, screener, rows)
    assert of.finding.startswith("the readings differ from the training data: flow ")
    of.save()
    again = watch(tmp_path, screener, rows[:0])
    assert again.finding == of.finding
    observe(again, screener, normal_rows(3000, 13))
    assert again.finding == ""


def test_a_drift_of_the_scores_alone_is_told_from_one_of_the_channels(screener: Screener, tmp_path: Path) -> None:
    # From the first sample on the readings vary as they always will here, but more than in training.
    finding = watch(tmp_path, screener, wider(3000, 1.3, 14)).finding
    assert finding == "the scores differ from the training data; no channel drifts"
