"""Flower's grid without its processes: real strategies and the real ClientApp, one call away from each other."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from edge import federated
from edge.normal_buffer import NormalSnapshot
from shared import federation
from shared.diffusion.distillation import DistillationSettings

DIM = 5
PREPROCESSING = "0123456789ab"


class InProcessGrid(Grid):
    """Nodes by id, each with its normal buffer; `tamper` may alter a reply, or return None to lose it."""

    def __init__(self, buffers: Mapping[int, Path], tamper: Callable[[Message], Message | None] | None = None) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self._buffers = dict(buffers)
        self._tamper = tamper or (lambda message: message)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self._buffers)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = (self._tamper(self._answer(message)) for message in messages)
        return [reply for reply in replies if reply is not None]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        config = {federation.NODE_BUFFER: str(self._buffers[node])}
        context = Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={})
        try:
            return federated.app(message, context)
        except Exception as error:  # as Flower's own runner does
            return Message(Error(code=2, reason=repr(error)), reply_to=message)


@pytest.fixture
def buffers(tmp_path: Path) -> Callable[..., dict[int, Path]]:
    """Make normal buffers of the given sizes; node ids count from 1."""

    def make(*sizes: int) -> dict[int, Path]:
        paths = {}
        for node, size in enumerate(sizes, start=1):
            inputs = np.random.default_rng(node).normal(size=(size, DIM)).astype(np.float32)
            paths[node] = tmp_path / f"normals-{node}.npz"
            paths[node].write_bytes(NormalSnapshot(inputs, size, PREPROCESSING, "pump").to_bytes())
        return paths

    return make


@pytest.fixture
def grid() -> type[InProcessGrid]:
    return InProcessGrid


@pytest.fixture
def training() -> dict[str, str | int]:
    """Values of each training message beside the head."""
    settings = DistillationSettings(steps=40, batch_size=64, perturbed=1500, learning_rate=1e-3)
    return {
        federation.KEY_BUNDLE_NAME: "pump",
        federation.KEY_PREPROCESSING_ID: PREPROCESSING,
        federation.KEY_DISTILLATION: settings.model_dump_json(),
        federation.KEY_MIN_SAMPLES: 50,
    }


@pytest.fixture
def train_config(training: dict[str, str | int]) -> ConfigRecord:
    return ConfigRecord(training)
