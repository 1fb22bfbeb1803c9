"""Contract of the port `Judge`: the same cases in this process, in a replica, and on a Ray cluster."""

import asyncio
import threading

import numpy as np
import pytest

from cloud.serving.analysis import load_analysis
from cloud.serving.bounded_judge import BoundedJudge
from cloud.serving.ports import EarlyDecision
from shared.errors import SampleRejected
from shared.samples import Verdict
from tests.cloud.serving.replicas.clusters import local_replica, needs_ray, ray_replicas, replica_options, stored

ON_RAY = pytest.param("ray", marks=[pytest.mark.long, needs_ray])


@pytest.fixture(scope="module", params=["in process", "replica", ON_RAY])
def judge(request, tmp_path_factory, biopsies):
    """A judge of the bundle."""
    data_dir, keys = stored(tmp_path_factory.mktemp("data"), biopsies.bundle), [biopsies.key.public_key()]
    if request.param == "in process":
        yield BoundedJudge(load_analysis(biopsies.bundle, "cpu", 0.01))
    elif request.param == "replica":
        with local_replica(replica_options(data_dir)) as replica:
            yield replica.judge_of(biopsies.bundle, keys, part_size=16)
    else:
        with _on_thread(data_dir) as replicas:
            yield replicas.judge_of(biopsies.bundle, keys)


class _on_thread:
    """A Ray cluster whose `ReplicaSet` runs on an event loop in a thread, because judges block."""

    def __init__(self, data_dir):
        self._data_dir, self._ready, self._end = data_dir, threading.Event(), asyncio.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(180)
        return self._replicas

    async def _run(self):
        self._loop = asyncio.get_running_loop()
        async with ray_replicas(self._data_dir) as self._replicas:
            self._ready.set()
            await self._end.wait()

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)


def mixed(biopsies):
    values = [*biopsies.normal[:20], *biopsies.anomalous[:20]]
    values[3] = np.full_like(values[3], np.nan)
    values[7] = np.ones(2, np.float32)
    return values


def assert_same(answers, expected):
    assert len(answers) == len(expected)
    for answer, other in zip(answers, expected, strict=True):
        assert type(answer) is type(other)
        if isinstance(other, SampleRejected):
            assert str(answer) == str(other)
            continue
        assert [each.analyzer for each in answer.opinions] == [each.analyzer for each in other.opinions]
        assert [name for name, _ in answer.contributions] == [name for name, _ in other.contributions]
        assert (answer.extrapolated, answer.left_out) == (other.extrapolated, other.left_out)
        pairs = [(answer.p_value, other.p_value), (answer.score, other.score)]
        pairs += [(a.p_value, b.p_value) for a, b in zip(answer.opinions, other.opinions, strict=True)]
        pairs += [(a, b) for (_, a), (_, b) in zip(answer.contributions, other.contributions, strict=True)]
        assert np.allclose(*zip(*pairs, strict=True), rtol=1e-4)


def test_every_sample_gets_its_own_answer_in_order(judge, biopsies):
    values = mixed(biopsies)
    answers = judge.judge(values, [None] * len(values))
    assert_same(answers, load_analysis(biopsies.bundle, "cpu", 0.01).judge(values))
    assert [index for index, each in enumerate(answers) if isinstance(each, SampleRejected)] == [3, 7]


def test_an_answer_does_not_depend_on_its_batch(judge, biopsies):
    values = mixed(biopsies)
    alone = [judge.judge([each], [None])[0] for each in values[:10]]
    assert_same(judge.judge(values, [None] * len(values))[:10], alone)


def test_a_permission_to_decide_early_changes_no_decision(judge, biopsies):
    values = [*biopsies.anomalous[:6], *biopsies.normal[:6]]
    early = EarlyDecision(0.01, [index % 3 == 0 for index in range(12)])
    answers = judge.judge(values, [None] * 12, early)
    assert_same(answers, load_analysis(biopsies.bundle, "cpu", 0.01).judge(values, (), early))


def test_no_samples_have_no_answers(judge):
    assert judge.judge([], []) == []


def test_verdicts_leave_the_decision_to_the_service(judge, biopsies):
    (answer,) = judge.judge([biopsies.anomalous[0]], [None])
    assert isinstance(answer, Verdict)
    assert (answer.decision, answer.bundle_id) == (Verdict().decision, "")
