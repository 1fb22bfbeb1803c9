"""Requests between service and replicas, with replicas that die."""

import grpc
import pytest

from cloud.serving.replicas.messages import answers_of
from cloud.serving.replicas.options import FrontOptions, ReplicaScale
from shared.errors import WorkerCrashedError
from tests.cloud.serving.replicas.clusters import needs_ray, replica_options
from vedette.v1 import judge_pb2

pytestmark = [pytest.mark.long, needs_ray]  # the import of Ray alone takes seconds


class Handle:
    """Handle of a deployment whose calls raise `errors` one after another, and then return their argument."""

    def __init__(self, errors) -> None:
        self.errors = list(errors)
        self.judge = self

    async def remote(self, data):
        if self.errors:
            raise self.errors.pop(0)
        return data


class Refused(Exception):
    """The call was ended with an error."""


class Context:
    async def abort(self, code, text):
        assert code is grpc.StatusCode.UNAVAILABLE
        raise Refused(text)


def options(tmp_path, **changes):
    facts = {"folder": str(tmp_path), "address": "local", "application": "vedette", "version": "1"}
    replica, scale = replica_options(tmp_path), ReplicaScale(1, 2, 0.0, 1.0)
    return FrontOptions(**{**facts, "replica": replica, "scale": scale, **changes})


def front_with(tmp_path, errors):
    from cloud.serving.replicas.front import Front

    front = Front(options(tmp_path))
    front._handle = Handle(errors)
    return front


async def test_a_request_whose_replica_dies_goes_to_another(tmp_path):
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    front = front_with(tmp_path, [ActorDiedError(), ActorUnavailableError("away", None)])
    assert await front._judge(b"request", Context()) == b"request"


async def test_a_request_that_kills_every_replica_is_given_back(tmp_path):
    from ray.exceptions import ActorDiedError

    front = front_with(tmp_path, [ActorDiedError() for _ in range(5)])
    reply = judge_pb2.JudgeReply.FromString(await front._judge(b"request", Context()))
    with pytest.raises(WorkerCrashedError, match="3 replicas died"):
        answers_of(reply)
    assert len(front._handle.errors) == 2


async def test_a_lost_cluster_gives_no_answer(tmp_path):
    from ray.exceptions import RaySystemError

    with pytest.raises(Refused):
        await front_with(tmp_path, [RaySystemError("lost")])._judge(b"request", Context())
    front = front_with(tmp_path, [])
    front._handle = None
    with pytest.raises(Refused, match="starting"):
        await front._judge(b"request", Context())


def test_options_survive_the_command_line_and_name_the_deployment(tmp_path):
    first, other = options(tmp_path), options(tmp_path, version="2")
    assert FrontOptions.from_json(first.to_json()) == first
    assert first.deployment == options(tmp_path, address="10.0.0.7:6379").deployment != other.deployment
