"""Peer of the ingest benchmark: a bare `grpc.aio` server that answers Submit and stores nothing.

It parses each request and returns one result a sample, as the service does, behind the same mutual TLS. It checks
nothing else. Started as `python -m cloud.bench.echo_server CLOUD.toml`; prints its address when it listens.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc.aio

from cloud.service.credentials import certificate_names, server_credentials
from cloud.service.data_dir import open_existing
from cloud.settings import CloudSettings
from shared.wire import MAX_MESSAGE_BYTES
from vedette.v1 import detection_pb2, detection_pb2_grpc


class EchoService(detection_pb2_grpc.DetectionServicer):
    """Submit without any work."""

    async def Submit(
        self, request: detection_pb2.SubmitRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> detection_pb2.SubmitResponse:
        """Return ACCEPTED until the endy sample."""
        accepted = detection_pb2.SUBMIT_STATUS_ACCEPTED
        return detection_pb2.SubmitResponse(
            results=[
                detection_pb2.SampleResult(sample_id=sample.sample_id, status=accepted) for sample in request.samples
            ]
        )


async def serve(settings: CloudSettings) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    detection_pb2_grpc.add_DetectionServicer_to_server(EchoService(), server)
    authority = open_existing(settings.store)
    credentials = server_credentials(authority, certificate_names(settings), require_client_certificate=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(CloudSettings.load(Path(sys.argv[1]), {})))
