"""Federated averaging of heads, weighted by normal samples (McMahan et al., AISTATS 2017, algorithm 1).

Flower's FedAvg does the averaging. This strategy adds three rules: every connected device takes part; an answer that is
not a head of the same shape counts as a failure and is left out; a round fails only if too few answers are left.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from cloud.federation.exchange import RoundRecord, RunFolder
from shared import federation
from shared.errors import FederationError

MAX_SAMPLES = 10_000_000  # limits the weight that a device can claim


class HeadAveraging(FedAvg):
    """FedAvg over heads whose arrays have the shapes of `initial`."""

    def __init__(self, initial: Mapping[str, NDArray[Any]], folder: RunFolder, *, min_clients: int) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            min_train_nodes=min_clients,
            min_available_nodes=min_clients,
            weighted_by_key=federation.METRIC_SAMPLES,
            arrayrecord_key=federation.ARRAYS,
            configrecord_key=federation.CONFIG,
        )
        self.rounds: list[RoundRecord] = []
        self._shapes = {name: array.shape for name, array in initial.items()}
        self._folder = folder
        self._min_clients = min_clients
        self._asked: list[int] = []
        self._started_s = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a training message for every connected device; raises FederationError if they are too few."""
        self._folder.raise_if_cancelled()
        self._asked = sorted(grid.get_node_ids())
        self._started_s = time.monotonic()
        if len(self._asked) < self._min_clients:
            raise FederationError(
                f"round {server_round}: {len(self._asked)} of the {self._min_clients} devices needed are connected"
            )
        self._folder.log_event("round", number=server_round, devices=len(self._asked))
        config[federation.KEY_ROUND] = server_round
        content = RecordDict({federation.ARRAYS: arrays, federation.CONFIG: config})
        return [Message(content, message_type=MessageType.TRAIN, dst_node_id=node) for node in self._asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the weighted mean of the valid answers; raises FederationError if they are too few."""
        valid: list[Message] = []
        record = RoundRecord(server_round, time.monotonic() - self._started_s)
        self.rounds.append(record)
        for reply in replies:
            node = str(reply.metadata.src_node_id)
            if problem := self._problem(reply):
                record.failures[node] = problem
                self._folder.log_event("refusal", device=node, reason=problem)
            else:
                valid.append(reply)
                metrics = reply.content[federation.METRICS]
                record.clients[node] = {name: float(value) for name, value in metrics.items()}
                self._folder.log_event("update", device=node, metrics=record.clients[node])
        for silent in {str(node) for node in self._asked} - record.clients.keys() - record.failures.keys():
            record.failures[silent] = "no answer in time"
        if len(valid) < self._min_clients:
            reasons = "; ".join(sorted(set(record.failures.values()))) or "no device answered"
            raise FederationError(
                f"round {server_round}: {len(valid)} of {len(self._asked)} devices sent an update, and "
                f"{self._min_clients} are needed ({reasons})"
            )
        aggregate: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, valid)
        return aggregate

    def _problem(self, reply: Message) -> str:
        """Return why an answer cannot be used; empty for a valid one."""
        if reply.has_error():
            return str(reply.error.reason)
        content = reply.content
        if set(content.keys()) != {federation.ARRAYS, federation.METRICS}:
            return "the answer does not hold exactly a head and its metrics"
        metrics = content[federation.METRICS]
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in metrics.values()):
            return "the answer's metrics are not finite numbers"
        if not 1 <= metrics.get(federation.METRIC_SAMPLES, 0) <= MAX_SAMPLES:
            return f"the answer's number of samples is not within 1 and {MAX_SAMPLES}"
        try:
            arrays = {name: array.numpy() for name, array in content[federation.ARRAYS].items()}
        except (ValueError, TypeError):
            return "the answer's arrays cannot be read"
        if {name: array.shape for name, array in arrays.items()} != self._shapes:
            return "the answer's arrays are not those of the head that was sent"
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
            return "the answer's arrays are not finite float32 numbers"
        return ""
