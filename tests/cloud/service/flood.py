"""Many large requests at once from one device, in a process of its own: python -m tests.cloud.service.flood."""

import asyncio
import collections
import json
import sys
from pathlib import Path

import grpc
import grpc.aio

SUBMIT = "/vedette.v1.Detection/Submit"


async def code_of(call: "grpc.aio.UnaryUnaryCall") -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        pause = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms", "")
        return f"{error.code().name} {'with' if pause else 'without'} a pause"
    return "OK"


async def flood(address: str, folder: Path, count: int, size: int) -> dict[str, int]:
    """Return how many requests ended with each code."""
    names = ("ca.pem", "key.pem", "certificate.pem")
    credentials = grpc.ssl_channel_credentials(*((folder / name).read_bytes() for name in names))
    body = b"\x0a\x80\x80\x80\x0f" + bytes(size)  # one sample of 30 MiB, all zero: not a valid message
    async with grpc.aio.secure_channel(address, credentials) as channel:
        submit = channel.unary_unary(SUBMIT)
        return dict(collections.Counter(await asyncio.gather(*(code_of(submit(body)) for _ in range(count)))))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(flood(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))))
