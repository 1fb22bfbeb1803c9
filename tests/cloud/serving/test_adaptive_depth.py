"""Members that cannot change a decision are left out, and no decision changes."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from cloud.methods import Analyzer
from cloud.methods.base import from_patch_scores
from cloud.methods.fusion import Fusion
from cloud.serving.analysis import Analysis
from cloud.serving.ports import EarlyDecision
from cloud.serving.verdicts import decode_batch, judge_batch
from shared.samples import Decision, Route
from shared.wire import decode_payload
from tests.cloud.serving.test_batcher import payload, waiting

RATE = 0.05


class Costly(Analyzer):
    """Norm of some coordinates, with a count of the samples that it scored."""

    name: ClassVar[str] = "costly"

    def __init__(self, columns: slice) -> None:
        self.columns, self.scored = columns, 0

    def fit(self, features, context, progress=None):
        pass

    def score(self, features):
        self.scored += len(features)
        return from_patch_scores(features.flat[:, self.columns].norm(dim=1), features)

    def state(self):
        return {}

    @classmethod
    def from_state(cls, state):
        return cls(slice(None))

    def to(self, device):
        return self


@pytest.fixture
def analysis(biopsies) -> Analysis:
    """The biopsies' quick member, and two costly ones that see only a part of each row."""
    quick = Analysis.load(biopsies.bundle, "cpu")
    analyzers = {**quick.analyzers, "left": Costly(slice(0, 6)), "right": Costly(slice(6, 30))}
    whole = Analysis(quick.preprocessor, None, analyzers, quick.fusion, {}, torch.device("cpu"))
    held_out = {name: scores for name, scores in whole.score(biopsies.normal).items() if name != "fused"}
    members = ("time_estimation", "left", "right")
    fusion = Fusion.fit(held_out, None, members, worth=dict(zip(members, (3, 1, 1), strict=True)))
    for name in ("left", "right"):
        analyzers[name].scored = 0
    return Analysis(quick.preprocessor, None, analyzers, fusion, {}, torch.device("cpu"))


def batch_of(biopsies, routes=(Route.FORWARD,)):
    rows = np.concatenate([biopsies.normal[:30], biopsies.anomalous[:60]])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    return [
        (replace(waiting(number), route=routes[number % len(routes)]), payload(*row)) for number, row in enumerate(rows)
    ]


def judged(analysis, batch, adaptive_depth):
    decoded = decode_batch(batch)
    return judge_batch(analysis, decoded, bundle_id="a-1-0", false_alarm_rate=RATE, adaptive_depth=adaptive_depth)


def test_decisions_equal_those_of_all_members_and_left_out_ones_bound_the_p_value(analysis, biopsies):
    batch = batch_of(biopsies)
    whole, early = judged(analysis, batch, False), judged(analysis, batch, True)
    assert [item.decision for item in early] == [item.decision for item in whole]
    left_out = [item.left_out for item in early]
    assert {(), ("right",), ("left", "right")} >= set(left_out)
    assert left_out.count(("left", "right")) >= 3
    for one, every in zip(early, whole, strict=True):
        if one.left_out:
            assert one.decision is Decision.ANOMALOUS
            assert every.p_value <= one.p_value <= RATE
            assert "upper bound" in one.reason
            assert not {opinion.analyzer for opinion in one.opinions} & set(one.left_out)
        else:
            assert one.p_value == pytest.approx(every.p_value)
            assert one.reason == ""


def test_members_that_are_left_out_score_nothing(analysis, biopsies):
    batch = batch_of(biopsies)
    verdicts = judged(analysis, batch, True)
    for name in ("left", "right"):
        assert analysis.analyzers[name].scored == sum(name not in item.left_out for item in verdicts)
    assert analysis.analyzers["right"].scored < len(batch)


def test_audits_are_always_scored_by_all_members(analysis, biopsies):
    verdicts = judged(analysis, batch_of(biopsies, (Route.AUDIT, Route.FORWARD)), True)
    assert not any(item.left_out for item in verdicts[::2])
    assert any(item.left_out for item in verdicts[1::2])


def test_samples_that_are_not_usable_keep_the_places_of_the_others(analysis, biopsies):
    batch = batch_of(biopsies)
    values = [decode_payload(item, one.modality) for one, item in batch]
    values[3] = np.full(30, np.nan, np.float32)
    allowed = EarlyDecision(RATE, [number == 5 for number in range(len(values))])
    early, whole = analysis.judge(values, (), allowed), analysis.judge(values)
    assert type(early[3]) is type(whole[3])
    assert early[5].left_out == ()
    for number in set(range(len(values))) - {3}:
        assert early[number].opinions[0] == whole[number].opinions[0]
