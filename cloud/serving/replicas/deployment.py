"""Deployment of the replicas on Ray Serve."""

import tempfile
from dataclasses import asdict
from typing import Any

import grpc.aio
from ray import serve

from cloud.serving.replicas.options import ReplicaOptions, ReplicaScale
from cloud.serving.replicas.replica import Replica

UPSCALE_S, DOWNSCALE_S = 5.0, 300.0
REQUESTS_WANTED, MAX_REQUESTS = 1.0, 2  # of a replica: one is judged, the next has arrived
HEALTH_CHECK_S, HEALTH_TIMEOUT_S = 5.0, 30.0


class ServeReplica:
    """Replica as Ray Serve creates it."""

    def __init__(self, options: dict[str, Any]) -> None:
        _close_unused_port()
        self._replica = Replica(ReplicaOptions(**options))

    async def judge(self, data: bytes) -> bytes:
        """Return the reply to a request."""
        return await self._replica.judge(data)

    def check_health(self) -> None:
        """Raise an error if this replica must be replaced; Ray Serve calls it."""
        self._replica.check_health()


def deployment_of(name: str, options: ReplicaOptions, scale: ReplicaScale) -> serve.Application:
    """Return the application for `serve.run`, whose only deployment has this name."""
    deployment = serve.deployment(ServeReplica).options(
        name=name,
        max_ongoing_requests=MAX_REQUESTS,
        autoscaling_config={
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
            "target_ongoing_requests": REQUESTS_WANTED,
            "upscale_delay_s": UPSCALE_S,
            "downscale_delay_s": DOWNSCALE_S,
        },
        health_check_period_s=HEALTH_CHECK_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
    )
    return deployment.bind(asdict(options))


def _close_unused_port() -> None:
    """Keep Ray Serve from listening on all interfaces.

    After this constructor, Ray Serve 2.55 starts a gRPC server for calls between deployments on every replica. It
    listens on all interfaces, asks for no token and unpickles requests. There are no such calls here: it gets a socket
    that is removed at once, so that nobody can connect.
    """
    for kind in grpc.aio.Server.__subclasses__():
        _listen_privately(kind)


def _listen_privately(kind: type[grpc.aio.Server]) -> None:
    method = "add_insecure_port"
    add_port = getattr(kind, method)

    def add_private_port(server: grpc.aio.Server, address: str) -> int:
        if address != "[::]:0":
            return int(add_port(server, address))
        with tempfile.TemporaryDirectory(prefix="vedette-") as folder:
            return int(add_port(server, f"unix:{folder}/unused"))

    setattr(kind, method, add_private_port)
