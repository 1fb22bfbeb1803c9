"""`max_miss_rate` finds the threshold that holds it, says what is missing, and stays within the budget."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.routing.budget import UploadBudget
from edge.routing.forwarding import tracked_samples
from edge.routing.miss_limit import MissLimit
from edge.routing.packing import Packed
from edge.routing.router import RateMeter, Router
from edge.settings import RouterSettings
from edge.uplink.verdicts import VerdictStore
from shared.samples import Decision, Verdict, new_sample_ids
from tests.edge.clock import Clock

RATE, ANOMALIES, SHARPNESS = 1000, 0.05, 12.0


class Device:
    """One source whose cloud finds every anomaly: a share ANOMALIES of all samples, with p-values u ** SHARPNESS."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.clock = Clock()
        chosen = RouterSettings(audit_share=0.1, **settings)  # type: ignore[arg-type]
        self.budget, self.store = UploadBudget(chosen, self.clock), VerdictStore(path)
        self.router = Router(chosen, "cam", RateMeter(RATE, self.clock), self.budget)
        self.limit = MissLimit(self.router, self.budget, self.store.audits, "cam")
        self._random, self._cursor = np.random.default_rng(5), 0
        self.sent = 0

    def screen(self, seconds: int, bundle_id: str = "press-1") -> None:
        """Screen, send and judge some seconds of samples, and refresh after each."""
        for _ in range(seconds):
            self.clock.now += 1.0
            anomalous = self._random.random(RATE) < ANOMALIES
            p_values = self._random.random(RATE) ** np.where(anomalous, SHARPNESS, 1.0)
            selection = self.router.select(p_values)
            routing = self.router.grant(selection, np.zeros(len(selection.candidates)))
            places = np.flatnonzero(routing.travels).tolist()
            self.sent = len(places)
            ids = dict(zip(places, new_sample_ids(len(places)), strict=True))
            tracked = tracked_samples(p_values, routing, Packed(sample_ids=ids), counts_all=True)
            self.store.audits.note("cam", bundle_id, tracked)
            self._cursor += 1
            of = {True: Decision.ANOMALOUS, False: Decision.NORMAL}
            self.store.store([Verdict(ids[place], of[bool(anomalous[place])]) for place in places], self._cursor)
            self.limit.refresh(bundle_id, self.clock.now)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "verdicts.db"


def missed_share(threshold: float) -> float:
    """Return the true share of anomalies among the samples that stay."""
    anomalies = ANOMALIES * (1 - threshold ** (1 / SHARPNESS))
    return anomalies / (anomalies + (1 - ANOMALIES) * (1 - threshold))


def test_the_threshold_falls_to_the_least_upload_whose_limit_holds(path: Path) -> None:
    device = Device(path, max_miss_rate=0.02)
    device.screen(1)
    assert "more audits are needed" in device.limit.words
    assert device.router.forward_p_value == 0.05
    device.screen(60)
    found = device.router.forward_p_value
    assert missed_share(0.05) < missed_share(found) <= 0.02
    assert found < 0.03, "far from the largest threshold that holds"
    assert "holds (95 %)" in device.limit.words
    assert not device.limit.problem
    status = device.limit.status()
    assert status.at_most_share is not None
    assert 0.01 < status.at_most_share < 0.02
    assert status.forward_p_value == found
    device.screen(1, "press-2")  # a new bundle starts a new count
    assert device.router.forward_p_value == 0.05
    assert device.limit.status().audits < 150


def test_where_the_budget_cannot_carry_the_limit_it_says_so(path: Path) -> None:
    device = Device(path, max_miss_rate=0.012, max_samples_per_s=200.0, burst_s=1)
    device.screen(40)
    assert "the budget carries 10 % beside the audits" in device.limit.problem
    assert "or raise max_miss_rate" in device.limit.problem
    assert device.router.forward_p_value < 0.1
    assert device.sent <= 200


def test_a_limit_that_no_upload_holds_is_not_promised(path: Path) -> None:
    device = Device(path, max_miss_rate=0.002)
    device.screen(20)
    assert device.router.forward_p_value == 0.05
    assert "of the audits so far were anomalous" in device.limit.words


def test_without_audits_the_limit_asks_for_them(path: Path) -> None:
    device = Device(path, max_miss_rate=0.02)
    device.router.settings = device.router.settings.model_copy(update={"audit_share": 0.0})
    device.screen(1)
    assert "raise audit_share above 0" in device.limit.words
