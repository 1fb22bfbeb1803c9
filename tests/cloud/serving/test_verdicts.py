"""Verdicts on a batch: the decision of each sample, also where others of the batch fail."""

from dataclasses import replace

import numpy as np
import pytest

from cloud.serving.verdicts import decode_batch, judge_batch
from shared.logs import Throttle
from shared.modality import Modality
from shared.samples import Decision, Verdict
from shared.wire import MAX_MAP_CELLS, encode_payload
from tests.cloud.serving.test_batcher import Recorder, judged, payload, waiting
from vedette.v1 import sample_pb2


def test_the_decision_is_the_p_value_against_the_rate():
    verdicts = judged(Recorder(), [payload(0.0099), payload(0.0101), payload(0.5)])
    assert [item.decision for item in verdicts] == [Decision.ANOMALOUS, Decision.NORMAL, Decision.NORMAL]


def test_a_crop_without_an_anomaly_is_undecided():
    pictures = []
    for level in (200, 5):
        item = encode_payload(np.full((20, 20, 1), level, np.uint8), Modality.IMAGE)
        item.crop.CopyFrom(sample_pb2.ImageCrop(height=100, width=100, corner=sample_pb2.Corner(top=1, left=2)))
        pictures.append(item)

    class FixedJudge:
        def judge(self, values, crops):
            assert [crop.region.left for crop in crops] == [2, 2]
            return [Verdict(p_value=0.5 if item[0, 0, 0] == 200 else 0.001) for item in values]

    batch = [(replace(waiting(number), modality=Modality.IMAGE), item) for number, item in enumerate(pictures)]
    unclear, odd = judge_batch(FixedJudge(), decode_batch(batch), bundle_id="a-1-0", false_alarm_rate=0.01)
    assert (unclear.decision, odd.decision) == (Decision.UNDECIDED, Decision.ANOMALOUS)
    assert "only a crop" in unclear.reason
    assert unclear.p_value == 0.5


def test_a_failed_sample_is_undecided_and_the_others_are_judged():
    broken = payload(0.5)
    broken.data = b"123"
    payloads = [payload(0.5), payload(-1), payload(7), payload(float("nan")), broken, None, payload(0.001)]
    verdicts = judged(Recorder(), payloads)
    assert [item.decision.value for item in verdicts] == ["normal", *["undecided"] * 5, "anomalous"]
    expected = ["", "the analysis failed (RuntimeError)", "seven", "p-value is nan", "bytes; shape", "gone", ""]
    for item, text in zip(verdicts, expected, strict=True):
        assert text in item.reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(2, "No such file or directory", "/srv/vedette/bundles/a.vedette"), "FileNotFoundError"),
        (MemoryError("/srv/vedette: 8 GiB"), "out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA, /srv/vedette"), "out of memory"),
    ],
)
def test_the_text_of_an_error_is_in_the_log_and_not_in_the_verdict(error, kind, caplog, monkeypatch):
    class Failing:
        def judge(self, values, crops=()):
            raise error

    monkeypatch.setattr("cloud.serving.verdicts._throttle", Throttle())
    with caplog.at_level("ERROR", logger="vedette"):
        (verdict,) = judged(Failing(), [payload(0.5)])
    assert verdict.reason == f"the analysis failed ({kind}). The log of the service has the details."
    (entry,) = [record.fields for record in caplog.records if record.getMessage() == "analysis_failed"]
    assert "/srv/vedette" in entry["error"]
    assert (entry["sample_id"], entry["bundle"]) == (verdict.sample_id, "a-1-0")


def test_one_bad_sample_in_a_large_batch_costs_few_more_calls():
    judge = Recorder()
    verdicts = judged(judge, [payload(-1 if number == 37 else 0.5) for number in range(64)])
    assert sum(item.decision is Decision.UNDECIDED for item in verdicts) == 1
    assert len(judge.sizes) <= 2 * 6 + 1


def test_too_few_answers_make_the_sample_undecided():
    class Short:
        def judge(self, values, crops=()):
            return []

    assert judged(Short(), [payload(0.5)])[0].decision is Decision.UNDECIDED


def test_a_map_too_large_to_send_is_left_out():
    class Mapper:
        def judge(self, values, crops=()):
            return [Verdict(p_value=0.5, anomaly_map=np.zeros((1, MAX_MAP_CELLS + 1), np.uint8))]

    (verdict,) = judged(Mapper(), [payload(0.5)])
    assert verdict.decision is Decision.NORMAL
    assert verdict.anomaly_map is None


def test_a_verdict_without_a_decision_is_undecided():
    assert Verdict().decision is Decision.UNDECIDED
    assert judged(Recorder(), [payload(0.5)])[0].p_value == 0.5
