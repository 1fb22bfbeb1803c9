"""Copies of a judged defect travel as a few samples and a count; samples that may be new are sent."""

import asyncio
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.cache import BundleCache
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.rehearsal import Rehearsal, rehearse
from edge.routing.budget import UploadBudget
from edge.routing.forwarding import Forwarded, Forwarder
from edge.routing.repeats.counts import CopyCounts
from edge.routing.repeats.filter import RepeatFilter
from edge.routing.repeats.memory import EVERY, PAUSE_S
from edge.routing.router import ALARM, AUDIT, FORWARD, RateMeter, Router
from edge.screener import Screener, load_screener
from edge.sealing import Seal
from edge.settings import RouterSettings, SpoolSettings, UplinkSettings
from edge.spool import Spool
from edge.uplink.link import LinkState
from edge.uplink.meter import LinkMeter
from shared.bundle import Bundle
from shared.modality import Modality
from shared.samples import Decision, SampleBatch, Verdict
from shared.signing_keys import public_pem
from shared.status import MAX_NEAR_COPIES
from tests.edge.bundles import normal_images, normal_rows, tabular_bundle
from tests.edge.clock import Clock
from tests.edge.memory_cloud import MemoryCloud, MemoryTransport, failure
from vedette.v1 import fleet_pb2, sample_pb2

DEFECT, OTHER, HARMLESS = np.array([27.0, 5.0, 100.0]), np.array([20.0, 9.0, 100.0]), np.array([20.0, 5.0, 160.0])
NOISE = np.array([0.01, 0.005, 0.1])  # a hundredth of a deviation
EXPIRES_S = 7200.0
SOME = 1e-9  # probability of an audit that is never drawn


class Site:
    """One source with its router; `judge` plays the service."""

    def __init__(self, screener: Screener, path: Path, seal: Seal | None = None, **settings: object) -> None:
        usual = {"repeats": "hold", "repeats_expire_s": EXPIRES_S, "seed": 0, "audit_share": SOME}
        chosen = RouterSettings.model_validate(usual | {"false_alarms_per_day": 1e5} | settings)
        self.clock, self.screener = Clock(), screener
        self.clock.now = 1000.0
        budget = UploadBudget(chosen, self.clock)
        self.repeats = RepeatFilter("plant", path, chosen, seal, self.clock)
        self.repeats.begin(screener)
        self.alarms: list[object] = []
        self.sent: list[bytes] = []
        router = Router(chosen, "plant", RateMeter(100.0, self.clock), budget)
        self._forwarder = Forwarder(router, chosen, budget, self.alarms.append, repeats=self.repeats)

    def screen(self, values: np.ndarray) -> Forwarded:
        count = len(values)
        origins = [str(number) for number in range(count)]
        batch = SampleBatch("plant", self.screener.modality, values, np.zeros(count), origins)
        forwarded = self._forwarder.forward(batch, self.screener.screen(batch), self.screener)
        self.sent = [sample.sample_id for sample in forwarded.samples]
        return forwarded

    def judge(self, decision: Decision, p_value: float | None = 0.5) -> None:
        """Judge the samples that were sent last."""
        self.repeats.learn([Verdict(uuid.UUID(bytes=item), decision, p_value) for item in self.sent])

    def held(self, values: np.ndarray) -> int:
        before = self.repeats.status().held
        self.screen(values)
        return self.repeats.status().held - before


@pytest.fixture(scope="module")
def screener(tabular: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Screener:
    return load_screener(tabular, "int8_onnxruntime", 64, tmp_path_factory.mktemp("engine"))


@pytest.fixture
def site(screener: Screener, tmp_path: Path) -> Site:
    site = Site(screener, tmp_path / "plant.npz")
    site.screen(normal_rows(600, seed=3))
    site.alarms.clear()
    return site


def near(row: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    return row + np.random.default_rng(seed).normal(size=(count, 3)) * NOISE


def test_after_its_first_verdict_a_defect_travels_as_a_few_samples_and_a_count_with_every_alarm(site: Site) -> None:
    before = site.screen(near(DEFECT, 60))  # no verdict yet
    assert len(before.samples) == 60
    first = site.sent[0]
    site.judge(Decision.ANOMALOUS, 1e-4)
    assert site.repeats.status().condemned < 5  # the burst is not remembered sample by sample
    site.alarms.clear()
    forwarded = site.screen(near(DEFECT, 200, seed=1))
    assert len(forwarded.samples) == 200 // EVERY
    assert forwarded.counts["samples_repeated"] == 200 - len(forwarded.samples)
    assert (forwarded.codes == ALARM).sum() == len(site.alarms) == 200
    assert "samples_held" not in forwarded.counts
    assert not forwarded.accepted.any()
    reported = site.repeats.to_report()
    assert first in [item.sample_id for item in reported]
    assert sum(item.copies for item in reported) == 200 - len(forwarded.samples)
    site.repeats.confirm(reported)
    assert not site.repeats.to_report()
    assert len(site.screen(np.concatenate([near(OTHER, 1), near(DEFECT, 1)])).samples) == 1
    site.clock.now += PAUSE_S  # a new episode
    assert len(site.screen(near(DEFECT, 5, seed=2)).samples) == 1


def test_while_the_link_is_down_every_sample_of_a_defect_travels(site: Site) -> None:
    sent = 0
    for second in range(400):
        site.clock.now += 1.0
        sent += len(site.screen(near(DEFECT, 1, seed=second)).samples)
    assert sent == 400


def test_a_turn_that_the_budget_refuses_is_due_again(screener: Screener, tmp_path: Path) -> None:
    site = Site(screener, tmp_path / "plant.npz", max_samples_per_s=1.0, burst_s=1.0)
    site.screen(normal_rows(600, seed=3))
    site.clock.now += 2.0
    assert len(site.screen(near(DEFECT, 1)).samples) == 1
    site.judge(Decision.ANOMALOUS, 1e-4)
    site.clock.now += PAUSE_S
    assert len(site.screen(near(OTHER, 1)).samples) == 1  # takes the whole budget
    refused = site.screen(near(DEFECT, 3))
    assert not refused.samples
    assert refused.counts["samples_held"] == 1
    site.clock.now += 2.0
    assert len(site.screen(near(DEFECT, 3, seed=1)).samples) == 1


def test_copies_of_a_sample_judged_normal_are_accepted_and_audited(screener: Screener, tmp_path: Path) -> None:
    site = Site(screener, tmp_path / "plant.npz", audit_share=0.2)
    site.screen(normal_rows(600, seed=3))
    site.screen(near(HARMLESS, 1))
    site.judge(Decision.NORMAL)
    site.alarms.clear()
    forwarded = site.screen(near(HARMLESS, 500, seed=1))
    audits, in_turn = (int((forwarded.codes == code).sum()) for code in (AUDIT, FORWARD))
    assert 60 <= audits <= 140
    assert in_turn == 500 // EVERY
    assert len(forwarded.samples) == audits + in_turn
    assert len(forwarded.tracked) == audits
    assert forwarded.accepted.sum() == 500 - audits - in_turn == forwarded.counts["samples_accepted"]
    assert "samples_repeated" not in forwarded.counts  # each sample has one count
    assert not forwarded.normal.any()
    assert not site.alarms
    routes = {sample_pb2.Sample.FromString(sample.data).screening.route for sample in forwarded.samples}
    assert routes == {sample_pb2.ROUTE_AUDIT, sample_pb2.ROUTE_FORWARD}


def test_without_audits_copies_of_a_normal_sample_are_sent_with_their_alarms(
    screener: Screener, tmp_path: Path
) -> None:
    site = Site(screener, tmp_path / "plant.npz", audit_share=0.0)
    site.screen(normal_rows(600, seed=3))
    site.screen(near(HARMLESS, 1))
    site.judge(Decision.NORMAL)
    site.alarms.clear()
    assert len(site.screen(near(HARMLESS, 100, seed=1)).samples) == 100 == len(site.alarms)
    site.judge(Decision.NORMAL)
    assert len(site.screen(near(HARMLESS, 10, seed=2)).samples) == 10


@pytest.mark.parametrize("verdict", [(Decision.ANOMALOUS, 1e-3), (Decision.NORMAL, 0.02)], ids=["anomalous", "low"])
@pytest.mark.parametrize("restart", ["none", "saved", "killed"])
def test_one_audit_that_does_not_confirm_removes_the_prototype(
    verdict: tuple[Decision, float], restart: str, screener: Screener, tmp_path: Path
) -> None:
    site = Site(screener, tmp_path / "plant.npz", audit_share=0.2)
    site.screen(normal_rows(600, seed=3))
    site.screen(near(HARMLESS, 1))
    site.judge(Decision.NORMAL)
    site.repeats.save()
    assert (site.screen(near(HARMLESS, 100, seed=1)).codes == AUDIT).any()
    sent = site.sent[:1]
    if restart == "saved":
        site.repeats.save()
    if restart != "none":
        site = Site(screener, tmp_path / "plant.npz", audit_share=0.2)
    assert site.screen(near(HARMLESS, 10, seed=2)).accepted.any()
    site.sent = sent
    site.judge(*verdict)
    assert not site.screen(near(HARMLESS, 10, seed=3)).accepted.any()


@pytest.mark.parametrize(("decision", "p_value"), [(Decision.UNDECIDED, None), (Decision.NORMAL, 0.02)])
def test_an_uncertain_verdict_is_not_remembered(site: Site, decision: Decision, p_value: float | None) -> None:
    site.screen(near(DEFECT, 1))
    site.judge(decision, p_value)
    assert not site.held(near(DEFECT, 1, seed=1))


def test_what_is_new_in_any_way_travels(site: Site, signing_key: Ed25519PrivateKey, tmp_path: Path) -> None:
    site.screen(near(HARMLESS, 1))
    site.judge(Decision.NORMAL)
    assert site.held(near(HARMLESS, 10, seed=1)) == 10
    assert not site.held(HARMLESS + np.array([[0.6, 0.0, 0.0]]))  # beyond the radius
    site.judge(Decision.ANOMALOUS, 1e-3)
    assert not site.held(HARMLESS + np.array([[0.2, 0.0, 0.0]]))  # near both
    site.screen(near(DEFECT, 3, seed=4))
    site.judge(Decision.ANOMALOUS, 1e-4)
    assert site.held(near(DEFECT, 10, seed=5))
    site.clock.now += EXPIRES_S + 1
    assert not site.held(near(DEFECT, 10, seed=6))
    site.judge(Decision.ANOMALOUS, 1e-4)
    assert site.held(near(DEFECT, 10, seed=7))
    site.screener = load_screener(tabular_bundle(signing_key, 2), "int8_onnxruntime", 64, tmp_path)
    assert not site.held(near(DEFECT, 10, seed=5))


def test_without_normal_samples_to_compare_with_all_travel(
    screener: Screener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(screener, tmp_path / "plant.npz", audit_share=1.0)
    with caplog.at_level("WARNING", logger="vedette"):
        assert (site.screen(near(np.array([20.0, 5.0, 100.0]), 5)).codes == AUDIT).all()
        assert len(site.screen(near(DEFECT, 30)).samples) == 30
    assert not caplog.records


def test_verdicts_on_samples_of_other_sources_write_no_snapshot(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plant.npz"
    site.screen(near(DEFECT, 1))
    site.repeats.save()
    path.unlink()
    site.repeats.learn([Verdict(uuid.uuid4(), Decision.ANOMALOUS, 1e-4)])
    site.repeats.save()
    assert not path.exists()
    site.judge(Decision.ANOMALOUS, 1e-4)
    site.repeats.save()
    assert path.exists()


def test_an_anomaly_that_creeps_away_from_a_normal_sample_is_held_within_its_radius_alone(site: Site) -> None:
    site.screen(HARMLESS[None])
    site.judge(Decision.NORMAL)
    steps = np.linspace(0.0, 2.0, 401)  # of the first channel's deviation
    held = [site.screen(HARMLESS + np.array([[step, 0.0, 0.0]])).accepted.any() for step in steps]
    assert held[0]
    assert 0 < steps[np.flatnonzero(held).max()] < 0.5


def test_the_memory_survives_a_restart_sealed(site: Site, screener: Screener, tmp_path: Path) -> None:
    path, seal = tmp_path / "sealed.npz", Seal(bytes(32), "normal_buffer")
    site = Site(screener, path, seal)
    site.screen(normal_rows(600, seed=3))
    site.screen(near(DEFECT, 1))
    site.judge(Decision.ANOMALOUS, 1e-4)
    assert site.held(near(DEFECT, 30))
    counted = site.repeats.to_report()
    site.repeats.save()
    assert path.read_bytes().startswith(b"VEDETTE-SEALED")
    again = Site(screener, path, seal)
    assert again.repeats.to_report() == counted
    assert again.held(near(DEFECT, 10, seed=1)) >= 9
    path.write_bytes(b"half a file")
    assert not Site(screener, path, seal).held(near(DEFECT, 10, seed=1))


def test_a_mark_at_another_place_of_an_image_is_no_copy(images: Bundle, tmp_path: Path) -> None:
    site = Site(load_screener(images, "int8_onnxruntime", 8, tmp_path), tmp_path / "cam.npz")
    assert site.screener.modality is Modality.IMAGE
    for seed in range(3):
        site.screen(normal_images(64, seed=seed + 10))
    marked, elsewhere = normal_images(12, seed=5), normal_images(1, seed=6)
    marked[:, 2:10, 2:10] = 255
    elsewhere[:, 20:28, 20:28] = 255
    site.screen(marked[:1])
    site.judge(Decision.ANOMALOUS, 1e-4)
    assert site.held(marked[1:]) == 11
    assert not site.held(elsewhere)
    site.judge(Decision.NORMAL)
    assert not site.held(elsewhere)  # a picture judged normal is not remembered


async def test_counts_are_reported_until_the_service_has_them(site: Site, tmp_path: Path) -> None:
    sent: list[list[int]] = []
    counters = Counters()
    spool = Spool(tmp_path / "spool.db", SpoolSettings(), counters)

    class Line(MemoryTransport):
        async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
            sent.append([item.copies for item in request.near_copies])
            if len(sent) == 1:
                raise failure(grpc.StatusCode.UNAVAILABLE)
            return await super().heartbeat(request, timeout_s)

    site.screen(near(DEFECT, 1))
    site.judge(Decision.ANOMALOUS, 1e-4)
    site.screen(near(DEFECT, 30))
    (count,) = [item.copies for item in site.repeats.to_report()]
    settings = UplinkSettings(heartbeat_s=0.01, backoff_initial_s=0.01)
    cache = BundleCache(tmp_path, [])
    updater = Updater("1", settings, cache, [], spool, counters, list, LinkMeter(), repeats=[site.repeats])
    running = asyncio.ensure_future(updater.run(Line(MemoryCloud()), LinkState("cloud:1")))
    while len(sent) < 3:
        updater.nudge()
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    spool.close()
    assert sent[:3] == [[count], [count], []]


def test_a_source_with_many_counts_keeps_no_other_from_reporting(tmp_path: Path) -> None:
    counters, sources = Counters(), (CopyCounts(), CopyCounts())
    for source in sources:
        for _ in range(MAX_NEAR_COPIES):
            source.add(uuid.uuid4().bytes, 0.0)
    spool = Spool(tmp_path / "spool.db", SpoolSettings(), counters)
    cache = BundleCache(tmp_path, [])
    updater = Updater("1", UplinkSettings(), cache, [], spool, counters, list, LinkMeter(), repeats=sources)
    reporters = [next(item for item, counts in updater._near_copies() if counts) for _ in range(4)]
    spool.close()
    assert {id(item) for item in reporters} == {id(source) for source in sources}


def test_a_rehearsal_says_what_each_held_row_is_a_copy_of(
    tabular: Bundle, signing_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    rows = np.concatenate([normal_rows(600, seed=3), near(DEFECT, 40), near(HARMLESS, 40)])
    anomalous = np.arange(len(rows)) // 40 == 15
    tabular.save(tmp_path / "b.vedette")
    (tmp_path / "key.pem").write_bytes(public_pem(signing_key.public_key()))
    np.savez(tmp_path / "rows.npz", values=rows, anomalous=anomalous, p_values=np.where(anomalous, 1e-4, 0.5))
    paths = (str(tmp_path / name) for name in ("b.vedette", "key.pem", "rows.npz"))
    found = rehearse(Rehearsal(*paths, "hold", 8, 8.0, 2.0), tmp_path)
    assert set(found["copied"]) <= set(found["sent"])
    assert [row for row in found["held"] if anomalous[row]]
    assert all(anomalous[row] == anomalous[of] for row, of in zip(found["held"], found["copied"], strict=True))
    assert len(set(found["accepted"]) & set(range(640, 680))) >= 30
