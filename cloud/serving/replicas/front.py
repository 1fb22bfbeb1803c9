"""Process between a service and a Ray cluster: it deploys the replicas and passes requests on to them.

Ray's libraries end their process when the cluster is lost; in a process of its own they end no service. It is run by
`cloud.serving.replicas.replica_set`, and ends with its standard input.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import Any

import grpc.aio
import ray
from ray import serve
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.serve.exceptions import RayServeException

from cloud.serving.replicas.deployment import deployment_of
from cloud.serving.replicas.messages import failure_reply
from cloud.serving.replicas.options import JUDGE, SERVICE, STATUS, UNLIMITED, FrontOptions
from shared.errors import WorkerCrashedError
from vedette.v1 import judge_pb2

MAX_DEATHS = 3  # replicas that die with one request before its samples count as the reason
OBJECT_BYTES = 2**30  # shared memory of a local cluster; requests beyond it go to the disk
STATUS_EVERY_S, STATUS_TIMEOUT_S = 1.0, 10.0
LOST_AFTER_S = 30.0
STARTING = "the replicas of the analysis are starting"


class Front:
    """gRPC methods for the service; each request goes to a replica and is repeated if the replica dies."""

    def __init__(self, options: FrontOptions) -> None:
        self._options = options
        self._handle: Any = None
        self._running, self._problem = 0, STARTING
        self._answered_s = 0.0

    async def run(self) -> None:
        """Serve until the cluster is lost; raises ConnectionError then."""
        server = grpc.aio.server(options=UNLIMITED)
        methods = {JUDGE: self._judge, STATUS: self._status}
        # Without serializers: requests and replies are bytes.
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(self._options.target)
        await server.start()
        self._handle = await asyncio.to_thread(self._deploy)
        loop = asyncio.get_running_loop()
        self._answered_s = loop.time()
        asked = asyncio.create_task(asyncio.to_thread(serve.status))
        while loop.time() - self._answered_s < LOST_AFTER_S:
            await asyncio.wait({asked}, timeout=STATUS_TIMEOUT_S)
            if asked.done():
                self._note_status(asked)
                await asyncio.sleep(STATUS_EVERY_S)
                asked = asyncio.create_task(asyncio.to_thread(serve.status))
            else:
                self._running, self._problem = 0, "the Ray cluster does not answer"
        raise ConnectionError("the Ray cluster does not answer")

    def _deploy(self) -> Any:
        """Return the handle of the application, deployed now unless it runs with the same options. Blocking."""
        options = self._options
        known = serve.status().applications.get(options.application)
        if known is not None and options.deployment in known.deployments:
            return serve.get_app_handle(options.application)
        application = deployment_of(options.deployment, options.replica, options.scale)
        target = serve.RunTarget(application, name=options.application, route_prefix=None)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        return handle

    def _note_status(self, asked: "asyncio.Task[Any]") -> None:
        try:
            found = asked.result().applications[self._options.application]
            state = found.deployments[self._options.deployment]
        except (RayError, RayServeException, KeyError, ConnectionError) as error:
            self._running, self._problem = 0, f"the Ray cluster does not answer ({type(error).__name__})"
            return
        self._answered_s = asyncio.get_running_loop().time()
        self._running = state.replica_states.get("RUNNING", 0)
        self._problem = ""
        if not self._running and self._options.scale.min_replicas:
            self._problem = " ".join(f"no replica of the analysis runs: {state.message or state.status}".split())

    async def _judge(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self._handle is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, STARTING)
        deaths = 0
        while True:
            try:
                reply = await self._handle.judge.remote(data)
            except (RayActorError, OutOfMemoryError) as error:
                deaths += 1
                logging.warning("A replica died with a request (%d): %s", deaths, _line(error))
                if deaths == MAX_DEATHS:
                    failure = WorkerCrashedError(f"{deaths} replicas died while they judged the same samples.")
                    return failure_reply(failure).SerializeToString()
            except (RayError, RayServeException) as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, _line(error))
            else:
                return bytes(reply)

    async def _status(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        reply = judge_pb2.StatusReply(running_replicas=self._running, problem=self._problem)
        return reply.SerializeToString()


def connect(options: FrontOptions) -> None:
    """Connect to the cluster, or start one on this machine; raises ConnectionError."""
    facts: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if options.address == "local":
        facts |= {"include_dashboard": False, "object_store_memory": OBJECT_BYTES, "_temp_dir": options.folder}
    else:
        facts |= {"address": options.address}
    try:
        ray.init(**facts)
        # The replicas are called through handles: no HTTP or gRPC proxy listens.
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    except (ConnectionError, RayError, RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(_line(error)) from error


def main() -> None:
    """Serve until the end of standard input, SIGTERM or the loss of the cluster."""
    options = FrontOptions.from_json(sys.argv[1])
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        connect(options)
        asyncio.run(Front(options).run())
    except ConnectionError as error:
        sys.exit(f"error: Ray cluster {options.address}: {error}")


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
