"""Two ingest, two analysis and a console process over one PostgreSQL store; each is killed in turn under load."""

import asyncio
import contextlib
import json
import socket
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import pytest

from cloud.service.data_dir import prepare
from cloud.service.tokens import new_tokens
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.judging import backlog
from cloud.store.registry import publish_to
from tests.cloud.service.harness import DeviceClient, enrol, message
from tests.cloud.service.served import VEDETTE, write_settings
from vedette.v1 import detection_pb2

DEVICES = 4
LOAD_S = 4.0  # before each kill
DRAIN_S = 120.0  # claims of a killed process last 30 s
ANSWERED = {detection_pb2.SUBMIT_STATUS_ACCEPTED, detection_pb2.SUBMIT_STATUS_DUPLICATE}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are taken at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in sockets]


class RoleProcess:
    """A process with a role on fixed ports, which can be killed and started again."""

    def __init__(self, folder: Path, role: str, key, url: str) -> None:
        self.role, self.log = role, folder / "log"
        folder.mkdir()
        names = ("listen", "enrolment_listen", "console_listen", "metrics_listen")
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(4), strict=True)}
        data_dir = str(folder.parent / "data")
        self.config = write_settings(folder, key, store_url=url, data_dir=data_dir, **self.addresses)
        self._web = self.addresses["console_listen" if role == "console" else "metrics_listen"]

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [VEDETTE, "cloud", "serve", "--role", self.role, "--config", self.config]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{self._web}{path}", timeout=10) as answer:
            return json.load(answer)

    async def until_ready(self) -> None:
        async with asyncio.timeout(90):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                with contextlib.suppress(OSError):
                    if (await asyncio.to_thread(self.get, "/ready"))["status"] == "ready":
                        return
                await asyncio.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def has_torch(self) -> bool:
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()


class SendingDevice:
    """A device that sends batches and follows its events, at whichever ingest process answers."""

    def __init__(self, client: DeviceClient, addresses: list[str], rows) -> None:
        self.client, self._addresses, self._rows = client, addresses, rows
        self.acknowledged: set[bytes] = set()
        self.verdicts: Counter[bytes] = Counter()
        self.ended = False

    async def send(self) -> None:
        number = 0
        while not self.ended:
            batch = [message(self._rows[(number + place) % len(self._rows)]) for place in range(4)]
            number += 4
            while not await self._submit(batch, number):
                number += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.1)

    async def _submit(self, batch: list, number: int) -> bool:
        try:
            async with self._channel(number) as channel:
                for sample in batch:
                    sample.screening.bundle_id = self.client.bundle_id
                submit = channel.unary_unary(
                    "/vedette.v1.Detection/Submit",
                    detection_pb2.SubmitRequest.SerializeToString,
                    detection_pb2.SubmitResponse.FromString,
                )
                answer = await submit(detection_pb2.SubmitRequest(samples=batch), timeout=5)
        except grpc.aio.AioRpcError:
            return False
        assert {result.status for result in answer.results} <= ANSWERED, answer
        self.acknowledged |= {sample.sample_id for sample in batch}
        return True

    async def watch(self) -> None:
        cursor, attempt = 0, 0
        while True:
            attempt += 1
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with self._channel(attempt) as channel:
                    watch = channel.unary_stream(
                        "/vedette.v1.Detection/Watch",
                        detection_pb2.WatchRequest.SerializeToString,
                        detection_pb2.Event.FromString,
                    )
                    async for event in watch(detection_pb2.WatchRequest(cursor=cursor)):
                        assert event.cursor > cursor
                        cursor = event.cursor
                        if event.WhichOneof("event") == "verdict":
                            self.verdicts[event.verdict.sample_id] += 1
            await asyncio.sleep(0.2)

    def _channel(self, number: int) -> grpc.aio.Channel:
        client = self.client
        credentials = grpc.ssl_channel_credentials(client.ca_pem, client.key_pem, client.certificate_pem)
        return grpc.aio.secure_channel(self._addresses[number % len(self._addresses)], credentials)


@contextlib.asynccontextmanager
async def all_processes(folder: Path, key, url: str):
    processes = [
        RoleProcess(folder / f"{number}-{role}", role, key, url)
        for number, role in enumerate(("ingest", "ingest", "analysis", "analysis", "console"))
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            await process.until_ready()
        yield processes
    finally:
        for process in processes:
            process.kill()


async def enrolled(process: RoleProcess, bundle_id: str, number: int) -> DeviceClient:
    token = await new_tokens(CloudSettings.load(process.config, {}), {f"press-{number}": f"secret-{number}"}, 600)
    client = await enrol(token[f"press-{number}"])
    client.bundle_id = bundle_id
    return client


@pytest.mark.long
@pytest.mark.system
@pytest.mark.timeout(600)
async def test_each_process_killed_under_load_loses_no_sample_and_no_event(tmp_path, biopsies, postgres_url):
    prepare(CloudSettings(data_dir=tmp_path / "data", store_url=postgres_url).store)
    store = CloudSettings(data_dir=tmp_path / "data", store_url=postgres_url).store
    bundle_id = (await publish_to(store, biopsies.bundle, biopsies.key.public_key())).bundle_id
    async with all_processes(tmp_path, biopsies.key, postgres_url) as processes:
        ingest = [process for process in processes if process.role == "ingest"]
        addresses = [process.addresses["listen"] for process in ingest]
        clients = [await enrolled(ingest[number % 2], bundle_id, number) for number in range(DEVICES)]
        devices = [SendingDevice(client, addresses, biopsies.normal) for client in clients]
        watching = [asyncio.create_task(device.watch()) for device in devices]
        sending = [asyncio.create_task(device.send()) for device in devices]
        for process in processes:
            await asyncio.sleep(LOAD_S)
            before = sum(len(device.acknowledged) for device in devices)
            process.kill()
            await asyncio.sleep(LOAD_S)
            assert sum(len(device.acknowledged) for device in devices) > before, process.role  # the others go on
            process.start()
            await process.until_ready()
        for device in devices:
            device.ended = True
        await asyncio.gather(*sending)
        async with asyncio.timeout(DRAIN_S):
            while any(device.acknowledged - device.verdicts.keys() for device in devices):
                await asyncio.sleep(0.5)
        for device in devices:
            assert set(device.verdicts) >= device.acknowledged
            assert set(device.verdicts.values()) == {1}, "one verdict a sample, each seen once"
        async with open_store(store) as opened:
            assert (await backlog(opened)).total == 0
        assert not any(process.has_torch for process in ingest)
        assert not any(task.done() for task in watching)
        for task in watching:
            task.cancel()
