"""Averaging: accepted answers, dropped answers, and failed rounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord
from hypothesis import given
from hypothesis import strategies as st

from cloud.federation.exchange import RunFolder
from cloud.federation.strategy import MAX_SAMPLES, HeadAveraging
from shared import federation
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import FederationError

DIM = 5


def head_arrays() -> dict[str, Any]:
    return TimeEstimationHead(DIM, (8, 8)).to_arrays()


def head_of_elsewhere() -> TimeEstimationHead:
    """A head that knows normals at another place than the devices' ones."""
    torch.manual_seed(0)
    head = TimeEstimationHead(DIM, (32, 32))
    settings = DistillationSettings(steps=300, batch_size=128, perturbed=4000)
    generator = torch.Generator().manual_seed(0)
    distill_head(head, torch.randn(300, DIM, generator=generator) + 3.0, settings=settings, generator=generator)
    return head


def records(arrays: dict[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def run(
    folder: Path,
    grid: Any,
    train_config: Any,
    rounds: int = 1,
    min_clients: int = 2,
    initial: dict[str, Any] | None = None,
) -> tuple[HeadAveraging, Any]:
    initial = initial or head_arrays()
    strategy = HeadAveraging(initial, RunFolder(folder), min_clients=min_clients)
    result = strategy.start(
        grid=grid, initial_arrays=records(initial), num_rounds=rounds, timeout=5, train_config=train_config
    )
    return strategy, result


def test_rounds_average_real_training(tmp_path: Path, grid: Any, buffers: Any, train_config: Any) -> None:
    sent = head_of_elsewhere()
    strategy, result = run(tmp_path, grid(buffers(200, 100)), train_config, rounds=2, initial=sent.to_arrays())
    assert [sorted(record.clients) for record in strategy.rounds] == [["1", "2"], ["1", "2"]]
    assert strategy.rounds[0].clients["1"][federation.METRIC_SAMPLES] == 200
    averaged = TimeEstimationHead.from_arrays({name: array.numpy() for name, array in result.arrays.items()})
    normals = torch.randn(500, DIM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = sent(normals).mean(), averaged(normals).mean()
    assert after < before - 0.1  # the devices' normal samples are less suspicious


@given(weights=st.lists(st.integers(1, 10_000), min_size=2, max_size=5))
def test_the_mean_is_weighted_by_samples(tmp_path: Path, weights: list[int]) -> None:
    initial = head_arrays()
    strategy = HeadAveraging(initial, RunFolder(tmp_path), min_clients=2)
    replies = []
    for node, weight in enumerate(weights):
        content = _content({name: np.full_like(array, node) for name, array in initial.items()}, weight)
        replies.append(_reply(node, content))
    aggregate, _ = strategy.aggregate_train(1, replies)
    expected = np.average(np.arange(len(weights)), weights=weights)
    for name, array in initial.items():
        np.testing.assert_allclose(aggregate[name].numpy(), np.full_like(array, expected), rtol=1e-4)
        assert aggregate[name].numpy().dtype == np.float32


def test_a_device_with_too_few_normals_is_counted_and_the_round_goes_on(
    tmp_path: Path, grid: Any, buffers: Any, train_config: Any
) -> None:
    strategy, _ = run(tmp_path, grid(buffers(200, 10, 150)), train_config)
    assert sorted(strategy.rounds[0].clients) == ["1", "3"]
    assert "10 normal samples" in strategy.rounds[0].failures["2"]
    assert [note["event"] for note in RunFolder(tmp_path).events()].count("refusal") == 1


def test_too_few_updates_fail_the_round_with_the_reasons(
    tmp_path: Path, grid: Any, buffers: Any, train_config: Any
) -> None:
    with pytest.raises(FederationError, match=r"1 of 2 devices sent an update, and 2 are needed .*10 normal samples"):
        run(tmp_path, grid(buffers(200, 10)), train_config)


def test_too_few_devices_fail_the_round_instead_of_waiting_for_ever(
    tmp_path: Path, grid: Any, buffers: Any, train_config: Any
) -> None:
    with pytest.raises(FederationError, match="1 of the 2 devices needed are connected"):
        run(tmp_path, grid(buffers(200)), train_config)


def test_a_silent_device_is_counted(tmp_path: Path, grid: Any, buffers: Any, train_config: Any) -> None:
    def lose(message: Message) -> Message | None:
        return None if message.metadata.src_node_id == 3 else message

    strategy, _ = run(tmp_path, grid(buffers(200, 100, 100), lose), train_config)
    assert strategy.rounds[0].failures == {"3": "no answer in time"}


def _spoil(arrays: dict[str, Any], samples: Any = 100, **extra: Any) -> Any:
    content = _content(arrays, samples)
    for name, record in extra.items():
        content[name] = record
    return content


def _content(arrays: dict[str, Any], samples: Any) -> Any:
    from flwr.app import RecordDict

    metrics = {
        federation.METRIC_SAMPLES: samples,
        federation.METRIC_LOSS: 0.1,
        federation.METRIC_TRAIN_SECONDS: 1.0,
    }
    return RecordDict({federation.ARRAYS: records(arrays), federation.METRICS: MetricRecord(metrics)})


def _reply(node: int, content: Any) -> Message:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, node
    return Message(content, dst_node_id=1, message_type="train")


_HEAD = head_arrays()
_NAME = sorted(_HEAD)[0]


@pytest.mark.parametrize(
    "content",
    [
        _spoil({**_HEAD, _NAME: np.full_like(_HEAD[_NAME], np.nan)}),
        _spoil({**_HEAD, _NAME: _HEAD[_NAME].astype(np.float64)}),
        _spoil({**_HEAD, _NAME: np.zeros((3, 3), np.float32)}),
        _spoil({name: array for name, array in _HEAD.items() if name != _NAME}),
        _spoil({**_HEAD, "more": np.zeros(2, np.float32)}),
        _spoil(_HEAD, 0),
        _spoil(_HEAD, MAX_SAMPLES + 1),
        _spoil(_HEAD, float("nan")),
        _spoil(_HEAD, [1, 2]),
        _spoil(_HEAD, samples_themselves=ArrayRecord({"x": Array(np.zeros((4, DIM), np.float32))})),
        Error(code=2, reason="broken"),
    ],
)
def test_an_unsound_update_never_reaches_the_mean(tmp_path: Path, content: Any) -> None:
    strategy = HeadAveraging(_HEAD, RunFolder(tmp_path), min_clients=2)
    sound = [_reply(node, _content(_HEAD, 10)) for node in (1, 2)]
    bad = _reply(3, _content(_HEAD, 10))
    bad = Message(content, reply_to=Message(bad.content, dst_node_id=3, message_type="train"))
    aggregate, _ = strategy.aggregate_train(1, [*sound, bad])
    assert list(strategy.rounds[0].failures) == ["3"]
    np.testing.assert_allclose(aggregate[_NAME].numpy(), _HEAD[_NAME], rtol=1e-6)
