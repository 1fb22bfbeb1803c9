"""A device in a round: training data, answers, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from edge import federated
from edge.normal_buffer import PURPOSE, NormalSnapshot
from edge.sealing import Seal
from shared import federation
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import FederationError

DIM = 6
PREPROCESSING = "abcdef012345"
SHORT = DistillationSettings(steps=60, batch_size=64, perturbed=2000, learning_rate=1e-3)
LONGER = SHORT.model_copy(update={"steps": 300})


def write_buffer(
    path: Path, count: int = 300, dim: int = DIM, preprocessing: str = PREPROCESSING
) -> NDArray[np.float32]:
    inputs = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    path.write_bytes(NormalSnapshot(inputs, count, preprocessing, "pump").to_bytes())
    return inputs


def request(
    head: TimeEstimationHead | None = None, settings: str = SHORT.model_dump_json(), min_samples: int = 50
) -> RecordDict:
    arrays = (head or TimeEstimationHead(DIM, (16, 16))).to_arrays()
    return RecordDict(
        {
            federation.ARRAYS: ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            federation.CONFIG: ConfigRecord(
                {
                    federation.KEY_BUNDLE_NAME: "pump",
                    federation.KEY_PREPROCESSING_ID: PREPROCESSING,
                    federation.KEY_DISTILLATION: settings,
                    federation.KEY_MIN_SAMPLES: min_samples,
                    federation.KEY_ROUND: 1,
                }
            ),
        }
    )


def train(content: RecordDict, buffer: Path) -> RecordDict:
    return federated.train_head(content, {federation.NODE_BUFFER: str(buffer)}, node_id=7)


def test_a_sealed_buffer_trains_with_its_key_and_a_refusal_names_no_path(tmp_path: Path) -> None:
    write_buffer(tmp_path / "a.npz", 300)
    seal = Seal(bytes.fromhex("ab" * 32), PURPOSE)
    (tmp_path / "a.npz").write_bytes(seal.seal((tmp_path / "a.npz").read_bytes()))
    content, key = request(TimeEstimationHead(DIM, (16, 16))), tmp_path / "key"
    config = {federation.NODE_BUFFER: str(tmp_path / "a.npz"), federation.NODE_BUFFER_KEY: str(key)}
    for text in (None, "cd" * 32):
        if text is not None:
            key.write_text(text)
        with pytest.raises(FederationError) as refused:
            federated.train_head(content, config, node_id=7)
        assert str(tmp_path) not in str(refused.value)
    key.write_text("ab" * 32)
    assert federated.train_head(content, config, node_id=7)[federation.ARRAYS]


def test_training_moves_the_head_and_is_weighted_by_the_samples(tmp_path: Path) -> None:
    write_buffer(tmp_path / "a.npz", 300)
    torch.manual_seed(0)  # the head draws its first weights from the global generator
    head = TimeEstimationHead(DIM, (16, 16))
    fleet = torch.randn((300, DIM), generator=torch.Generator().manual_seed(1))
    distill_head(head, fleet, settings=LONGER, generator=torch.Generator().manual_seed(2))
    answer = train(request(head), tmp_path / "a.npz")
    trained = {name: array.numpy() for name, array in answer[federation.ARRAYS].items()}
    assert {name: a.shape for name, a in trained.items()} == {name: a.shape for name, a in head.to_arrays().items()}
    assert any(not np.array_equal(trained[name], before) for name, before in head.to_arrays().items())
    assert answer[federation.METRICS][federation.METRIC_SAMPLES] == 300
    after = TimeEstimationHead.from_arrays(trained)
    with torch.no_grad():
        assert after(torch.full((1, DIM), 8.0)).item() > after(torch.zeros(1, DIM)).item()


def test_the_answer_holds_arrays_of_the_head_and_scalars_and_nothing_else(tmp_path: Path) -> None:
    samples = write_buffer(tmp_path / "a.npz", 400)
    head = TimeEstimationHead(DIM, (16, 16))
    answer = train(request(head), tmp_path / "a.npz")
    assert set(answer.keys()) == {federation.ARRAYS, federation.METRICS}
    assert set(answer[federation.ARRAYS].keys()) == set(head.to_arrays())
    assert set(answer[federation.METRICS].keys()) == {
        federation.METRIC_SAMPLES,
        federation.METRIC_LOSS,
        federation.METRIC_TRAIN_SECONDS,
    }
    assert all(isinstance(value, int | float) for value in answer[federation.METRICS].values())
    sent = b"".join(array.data for array in answer[federation.ARRAYS].values())
    assert not any(row.tobytes() in sent for row in samples)
    assert str(tmp_path).encode() not in sent


def test_the_size_of_the_answer_does_not_depend_on_the_samples(tmp_path: Path) -> None:
    def answer_bytes(count: int) -> int:
        write_buffer(tmp_path / "a.npz", count)
        answer = train(request(), tmp_path / "a.npz")
        return sum(len(array.data) for array in answer[federation.ARRAYS].values())

    assert answer_bytes(60) == answer_bytes(900)


def test_a_folder_of_buffers_gives_those_of_the_head_s_preprocessing(tmp_path: Path) -> None:
    write_buffer(tmp_path / "a.npz", 100)
    write_buffer(tmp_path / "b.npz", 70)
    write_buffer(tmp_path / "other.npz", 500, preprocessing="another")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nothing")
    assert train(request(), tmp_path)[federation.METRICS][federation.METRIC_SAMPLES] == 170


@pytest.mark.parametrize(
    ("buffer", "content", "words"),
    [
        ({"count": 20}, request(), "20 normal samples, and 50 are needed"),
        ({"preprocessing": "another"}, request(), "another preprocessing"),
        ({"dim": DIM + 1}, request(), f"do not have the {DIM} values"),
        (None, request(), "no readable normal buffer"),
        ({}, request(settings='{"steps": -1}'), "training settings are not valid"),
        ({}, request(settings='{"run": "anything"}'), "training settings are not valid"),
    ],
)
def test_refusals_say_why_and_name_no_path(
    tmp_path: Path, buffer: dict[str, int] | None, content: RecordDict, words: str
) -> None:
    if buffer is not None:
        write_buffer(tmp_path / "a.npz", **buffer)  # type: ignore[arg-type]
    with pytest.raises(FederationError, match=words) as error:
        train(content, tmp_path / "a.npz")
    assert str(tmp_path) not in str(error.value)


def test_arrays_that_are_no_sound_head_are_refused(tmp_path: Path) -> None:
    write_buffer(tmp_path / "a.npz")
    head = TimeEstimationHead(DIM, (16,))
    head.layers[0].weight.data[0, 0] = float("nan")
    with pytest.raises(FederationError, match="not finite"):
        train(request(head), tmp_path / "a.npz")
    content = request()
    content[federation.ARRAYS] = ArrayRecord({"layers.0.bias": Array(np.zeros(3, np.float32))})
    with pytest.raises(FederationError, match="not a head"):
        train(content, tmp_path / "a.npz")


def test_the_server_cannot_keep_a_device_busy_for_hours() -> None:
    greedy = DistillationSettings(steps=1_000_000, max_seconds=86_400.0, batch_size=65_536, perturbed=10**9)
    granted = federated.limited_distillation(greedy.model_dump_json())
    assert granted.steps == federated.MAX_SETTINGS["steps"]
    assert granted.max_seconds == federated.MAX_SETTINGS["max_seconds"]
    assert granted.batch_size == federated.MAX_SETTINGS["batch_size"]
    assert granted.perturbed == federated.MAX_SETTINGS["perturbed"]


def test_the_client_app_answers_with_an_error_instead_of_failing(tmp_path: Path) -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as Flower sets it in each process
    context = Context(
        run_id=1,
        node_id=7,
        node_config={federation.NODE_BUFFER: str(tmp_path / "none.npz")},
        state=RecordDict(),
        run_config={},
    )
    message = Message(request(), dst_node_id=7, message_type="train")
    reply = federated.app(message, context)
    assert reply.has_error()
    assert reply.error.code == federated.CODE_REFUSED
    assert "no readable normal buffer" in reply.error.reason
    write_buffer(tmp_path / "none.npz")
    assert not federated.app(Message(request(), dst_node_id=7, message_type="train"), context).has_error()


def test_masks_and_modes_are_perturbed_by_the_rounds_layout_and_a_wrong_layout_is_refused(tmp_path: Path) -> None:
    write_buffer(tmp_path / "a.npz", 200)
    for masked, modes, fits in (
        (2, 2, True),
        (0, 3, True),
        (4, 0, False),
        (3, 1, False),
        (0, 6, False),
        (-1, 0, False),
    ):
        content = request()
        content[federation.CONFIG][federation.KEY_MASKED] = masked
        content[federation.CONFIG][federation.KEY_MODES] = modes
        if fits:
            assert train(content, tmp_path / "a.npz")[federation.METRICS][federation.METRIC_SAMPLES] == 200
        else:
            with pytest.raises(FederationError, match="layout"):
                train(content, tmp_path / "a.npz")
