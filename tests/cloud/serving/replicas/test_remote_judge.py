import numpy as np
import pytest

from cloud.serving.ports import EarlyDecision
from cloud.serving.replicas.messages import failure_reply, reply_of, samples_of
from cloud.serving.replicas.remote_judge import PART_S, RemoteJudge
from shared.errors import BundleError, ConnectionFailedError
from shared.samples import Verdict
from vedette.v1 import judge_pb2


class Replicas:
    """Replicas whose p-values are the samples' own values; each sample takes `sample_s` seconds."""

    def __init__(self, sample_s: float = 0.0) -> None:
        self.sample_s = sample_s
        self.requests: list[judge_pb2.JudgeRequest] = []

    def send(self, requests):
        self.requests = list(requests)
        return [self._reply(*samples_of(each)) for each in requests]

    def _reply(self, values, crops, early):
        answers = [Verdict(p_value=float(each[0])) for each in values]
        return reply_of(answers, self.sample_s * len(values))

    @property
    def sizes(self) -> list[int]:
        return [len(each.samples) for each in self.requests]


def judge_with(replicas, part_size=10, most=4):
    return RemoteJudge(judge_pb2.BundleReference(bundle_id="a-1-0"), replicas.send, part_size=part_size, replicas=most)


def judged(judge, count, early=None):
    values = [np.array([index / count], np.float32) for index in range(count)]
    return [round(each.p_value * count) for each in judge.judge(values, [None] * count, early)]


def test_a_batch_is_cut_into_equal_parts_of_bounded_size():
    replicas = Replicas()
    assert judged(judge_with(replicas), 41) == list(range(41))
    assert replicas.sizes == [8, 8, 8, 8, 9]


@pytest.mark.parametrize(("sample_s", "sizes"), [(PART_S, [2, 2, 2, 2]), (PART_S / 4, [4, 4]), (PART_S / 1000, [8])])
def test_samples_that_take_long_are_shared_by_the_replicas(sample_s, sizes):
    replicas = Replicas(sample_s)
    judge = judge_with(replicas)
    for _ in range(2):  # the first call measures
        assert judged(judge, 8) == list(range(8))
    assert replicas.sizes == sizes


def test_each_sample_keeps_its_permission():
    replicas, early = Replicas(), EarlyDecision(0.02, [index % 3 == 0 for index in range(25)])
    judged(judge_with(replicas), 25, early)
    permissions = [samples_of(each)[2] for each in replicas.requests]
    assert [each.false_alarm_rate for each in permissions] == [0.02] * 3
    assert [flag for each in permissions for flag in each.exhaustive] == early.exhaustive


def test_a_failure_of_one_part_is_raised():
    replicas = Replicas()
    judge = RemoteJudge(
        judge_pb2.BundleReference(),
        lambda requests: [*replicas.send(requests[1:]), failure_reply(BundleError("gone"))],
        part_size=10,
        replicas=4,
    )
    with pytest.raises(BundleError, match="gone"):
        judged(judge, 20)
    with pytest.raises(BundleError, match="gone"):
        judge.load()


def test_replicas_that_cannot_be_reached_give_no_answer():
    def send(requests):
        raise ConnectionFailedError("away")

    with pytest.raises(ConnectionFailedError, match="away"):
        judged(RemoteJudge(judge_pb2.BundleReference(), send, part_size=10, replicas=4), 20)
