"""Live views through the service: who may ask, what a device may answer, and what is written about it."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from cloud.live_views import desk as desk_module
from cloud.service import process
from cloud.service.main import _make_console
from cloud.service.roles import Role
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.fleet import Place, set_place
from cloud.user_roles import UserRole
from shared.errors import SettingsError, StorageError
from shared.images import encode_jpeg
from shared.live_views import NewestSample, live_sample
from shared.modality import Modality
from shared.samples import Route, Screening
from tests.accounts import sign_in
from tests.cloud.service.harness import DeviceClient, Running, running, settings_for
from vedette.v1 import detection_pb2, fleet_pb2

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)


def sample(modality: Modality = Modality.TABULAR, values: np.ndarray | None = None, bundle_id: str = "none"):
    values = np.ones(30, np.float32) if values is None else values
    screening = Screening(3.5, 0.01, False, Route.ACCEPT, bundle_id, "c", "int8_openvino")
    return live_sample(NewestSample(modality, time.time(), "readings.csv:7", values, screening))


@contextlib.asynccontextmanager
async def answering(device: DeviceClient, answer: fleet_pb2.AnswerLiveViewRequest | None, *, is_old: bool = False):
    """A device that follows its events, and answers every request with `answer`, None: not at all.

    Gives its requests, and the status of each answer.
    """
    requests: list[detection_pb2.LiveViewRequested] = []
    codes: list[grpc.StatusCode] = []
    fleet, stream = device.fleet, device.detection.Watch(detection_pb2.WatchRequest(answers_live_views=not is_old))

    async def follow() -> None:
        async for event in stream:
            if event.WhichOneof("event") != "live_view_requested":
                continue
            requests.append(event.live_view_requested)
            if answer is not None:
                answer.request_id = event.live_view_requested.request_id
                codes.append(await status_of(fleet.AnswerLiveView(answer)))

    following = asyncio.create_task(follow())
    try:
        yield requests, codes
    finally:
        following.cancel()
        stream.cancel()


async def status_of(call) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def noted(codes: list[grpc.StatusCode], count: int) -> list[grpc.StatusCode]:
    """Wait until the device knows the status of `count` answers: people may see a sample earlier."""
    async with asyncio.timeout(20):
        while len(codes) < count:
            await asyncio.sleep(0.02)
    return codes


async def connected(cloud: Running, device_id: str) -> None:
    """Wait until the service has the event stream of a device."""
    async with asyncio.timeout(20):
        while not cloud.service._devices._notifier.streams_of(device_id):
            await asyncio.sleep(0.02)


class Desk:
    """HTTP calls of one signed-in person."""

    def __init__(self, url: str, browser) -> None:
        headers = {**browser.headers, "Origin": url.rstrip("/")}
        self.client = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)

    async def look(self, device_id: str = "press-07", source_id: str = "lab") -> httpx.Response:
        return await self.client.post(f"/api/v1/devices/{device_id}/live-view", json={"source_id": source_id})

    async def part(self, device_id: str = "press-07", source_id: str = "lab") -> httpx.Response:
        return await self.client.post(f"/parts/device/{device_id}/live-view", params={"source": source_id})


@contextlib.asynccontextmanager
async def signed_in(cloud: Running, role: UserRole = UserRole.OPERATOR, **changes) -> AsyncIterator[Desk]:
    desk = Desk(cloud.service.addresses.console_url, await sign_in(cloud.service.store, role, **changes))
    async with desk.client:
        yield desk


@pytest.fixture
async def cloud(tmp_path, biopsies):
    async with running(settings_for(tmp_path), biopsies.key, make_console=_make_console) as result:
        await result.service.registry.publish(biopsies.bundle)
        yield result


@pytest.fixture
def quick(monkeypatch):
    """Waits of a desk for a device that does not answer, which are seconds."""
    monkeypatch.setattr(desk_module, "FOUND_S", 0.5)
    monkeypatch.setattr(desk_module, "ANSWER_S", 1.0)


async def entries(cloud: Running) -> list[tuple[str, str, dict]]:
    async with cloud.service.store.reading() as connection:
        page = await audit_page(connection, AuditFilter(action="device.viewed"))
    return [(entry.actor, entry.subject, entry.details) for entry in page]


async def test_an_operator_sees_the_newest_sample_and_one_entry_a_minute_tells(cloud, biopsies):
    device = await cloud.device()
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample(bundle_id=biopsies.bundle.manifest.bundle_id))
    async with signed_in(cloud) as desk, answering(device, shown) as (requests, codes):
        await connected(cloud, "press-07")
        for _ in range(3):
            answer = await desk.look()
            assert answer.status_code == 200
        found = answer.json()
        assert (found["state"], found["sample"]["modality"]) == ("shown", "tabular")
        assert found["sample"]["readings"]["values"] == [[1.0] * 30]
        assert found["sample"]["readings"]["names"] == list(biopsies.bundle.manifest.input.channels)
        assert found["sample"]["readings"]["normal"][0]["low"] < found["sample"]["readings"]["normal"][0]["high"]
        assert {(item.source_id, item.asked_by) for item in requests} == {("lab", "operator")}
        assert await noted(codes, 3) == [grpc.StatusCode.OK] * 3
        assert (await desk.look(source_id="other")).status_code == 200
    assert await entries(cloud) == [
        ("account:operator", "press-07", {"source": "other"}),
        ("account:operator", "press-07", {"source": "lab"}),
    ]


async def test_a_picture_reaches_the_browser_as_a_file_of_the_service(cloud):
    device = await cloud.device()
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample(Modality.IMAGE, PICTURE))
    sent = shown.sample.payload.data
    async with signed_in(cloud) as desk, answering(device, shown):
        await connected(cloud, "press-07")
        picture = (await desk.look()).json()["sample"]["picture"]
        assert (picture["height"], picture["width"], picture["whole_height"]) == (48, 64, 48)
        page = await desk.part()
        assert page.status_code == 200
        assert 'src="data:image/jpeg;base64,' in page.text
        assert f'base64,{picture["data"]}"' in page.text
        written = base64.b64decode(picture["data"])
        assert written[:3] == b"\xff\xd8\xff"
        assert written != sent  # not the bytes of the device
        assert "no-store" in page.headers["cache-control"]


async def test_nothing_of_a_shown_sample_is_stored(cloud, tmp_path):
    device = await cloud.device()
    mark = "a-name-that-occurs-nowhere-else"
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample())
    shown.sample.origin = mark
    async with signed_in(cloud) as desk, answering(device, shown):
        await connected(cloud, "press-07")
        assert (await desk.look()).json()["sample"]["origin"] == mark
    files = [path for path in Path(cloud.settings.data_dir).rglob("*") if path.is_file()]
    assert any(b"device.viewed" in path.read_bytes() for path in files)
    assert not any(mark.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("refusal", "state"),
    [
        (fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED, "not permitted"),
        (fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE, "no sample"),
        (fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE, "unknown source"),
        (fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN, "too often"),
        (fleet_pb2.LIVE_VIEW_REFUSAL_NOT_SHOWABLE, "not showable"),
        (99, "refused answer"),
    ],
)
async def test_a_refusal_of_the_device_arrives_in_words(cloud, refusal, state):
    device = await cloud.device()
    answer = fleet_pb2.AnswerLiveViewRequest()
    answer.MergeFromString(fleet_pb2.AnswerLiveViewRequest(refusal=1).SerializeToString()[:1] + bytes([refusal]))
    async with signed_in(cloud) as desk, answering(device, answer):
        await connected(cloud, "press-07")
        found = (await desk.look()).json()
        assert (found["state"], found["sample"]) == (state, None)
        assert found["words"] in (await desk.part()).text


async def test_silent_and_old_devices_are_told_apart(cloud, quick):
    device = await cloud.device()
    async with signed_in(cloud) as desk:
        assert (await desk.look()).json()["state"] == "not connected"
        async with answering(device, None, is_old=True) as (requests, _):
            await connected(cloud, "press-07")
            assert (await desk.look()).json()["state"] == "old agent"
            assert not requests
        assert (await desk.look("unknown")).status_code == 404
    other = await cloud.device("press-08")
    async with signed_in(cloud) as desk, answering(other, None) as (requests, _):
        await connected(cloud, "press-08")
        assert (await desk.look("press-08")).json()["state"] == "no answer"
        assert len(requests) == 1


async def test_a_device_cannot_push_a_picture_that_nobody_asked_it_for(cloud, quick):
    asked, foreign = await cloud.device(), await cloud.device("press-08")
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample(), request_id=bytes(16))
    assert await status_of(foreign.fleet.AnswerLiveView(shown)) is grpc.StatusCode.NOT_FOUND
    async with signed_in(cloud) as desk, answering(asked, None) as (requests, _):
        await connected(cloud, "press-07")
        looking = asyncio.create_task(desk.look())
        async with asyncio.timeout(20):
            while not requests:
                await asyncio.sleep(0.01)
        shown.request_id = requests[0].request_id  # known to the foreign device somehow
        assert await status_of(foreign.fleet.AnswerLiveView(shown)) is grpc.StatusCode.NOT_FOUND
        assert (await looking).json()["state"] == "no answer"


async def test_an_answer_counts_once_and_not_after_its_time(cloud, monkeypatch):
    device = await cloud.device()
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample())
    async with signed_in(cloud) as desk, answering(device, shown) as (_, codes):
        await connected(cloud, "press-07")
        assert (await desk.look()).json()["state"] == "shown"
        assert await noted(codes, 1) == [grpc.StatusCode.OK]
        assert await status_of(device.fleet.AnswerLiveView(shown)) is grpc.StatusCode.NOT_FOUND
    monkeypatch.setattr(desk_module, "ANSWER_S", 1.0)
    async with signed_in(cloud) as desk, answering(device, None) as (requests, _):
        await connected(cloud, "press-07")
        looking = asyncio.create_task(desk.look())
        async with asyncio.timeout(20):
            while not requests:
                await asyncio.sleep(0.01)
        shown.request_id = requests[0].request_id
        opened = cloud.service._devices._live_views._open
        opened[shown.request_id] = replace(opened[shown.request_id], until_s=time.monotonic() - 1)
        assert await status_of(device.fleet.AnswerLiveView(shown)) is grpc.StatusCode.NOT_FOUND
        assert (await looking).json()["state"] == "no answer"


def oversized(answer: fleet_pb2.AnswerLiveViewRequest) -> None:
    answer.sample.payload.data += bytes(100_000)


def other_file(answer: fleet_pb2.AnswerLiveViewRequest) -> None:
    answer.sample.payload.data = b"<svg onload=alert(1)>"
    answer.sample.payload.ClearField("crc32")


def damaged(answer: fleet_pb2.AnswerLiveViewRequest) -> None:
    """Take the quantisation tables out: the structure stays whole, and no decoder can read it."""
    data = encode_jpeg(PICTURE)
    while (place := data.find(b"\xff\xdb")) >= 0:
        data = data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]
    answer.sample.payload.data = data
    answer.sample.payload.ClearField("crc32")


@pytest.mark.parametrize("spoil", [oversized, other_file, lambda answer: answer.ClearField("sample")])
async def test_an_answer_that_breaks_a_rule_is_refused_on_both_sides(cloud, spoil):
    device = await cloud.device()
    answer = fleet_pb2.AnswerLiveViewRequest(sample=sample(Modality.IMAGE, PICTURE))
    spoil(answer)
    async with signed_in(cloud) as desk, answering(device, answer) as (_, codes):
        await connected(cloud, "press-07")
        found = (await desk.look()).json()
        assert (found["state"], found["sample"]) == ("refused answer", None)
        assert await noted(codes, 1) == [grpc.StatusCode.INVALID_ARGUMENT]


async def test_pixels_that_cannot_be_decoded_are_not_shown(cloud):
    device = await cloud.device()
    answer = fleet_pb2.AnswerLiveViewRequest(sample=sample(Modality.IMAGE, PICTURE))
    damaged(answer)
    async with signed_in(cloud) as desk, answering(device, answer) as (_, codes):
        await connected(cloud, "press-07")
        assert (await desk.look()).json()["state"] == "refused answer"
        assert await noted(codes, 1) == [grpc.StatusCode.OK]  # decoded in the console's process alone


async def test_viewers_and_people_of_other_sites_cannot_look(cloud):
    device = await cloud.device()
    await set_place(cloud.service.store, ["press-07"], Place("north", None))
    shown = fleet_pb2.AnswerLiveViewRequest(sample=sample())
    async with answering(device, shown) as (requests, _):
        await connected(cloud, "press-07")
        async with signed_in(cloud, UserRole.VIEWER) as desk:
            assert [(await desk.look()).status_code, (await desk.part()).status_code] == [403, 403]
        async with signed_in(cloud, name="bob", sites=("south",)) as desk:
            assert [(await desk.look()).status_code, (await desk.part()).status_code] == [403, 403]
        assert not requests
        async with signed_in(cloud, name="eve", sites=("north",)) as desk:
            assert (await desk.look()).json()["state"] == "shown"
    assert [actor for actor, _, _ in await entries(cloud)] == ["account:eve"]


async def test_looks_of_a_person_and_at_a_device_are_limited(tmp_path, biopsies, monkeypatch, quick):
    monkeypatch.setattr(process, "LIVE_VIEW_BURST", 2)
    monkeypatch.setattr(process, "LIVE_VIEWS_PER_MINUTE", 0.01)
    async with running(settings_for(tmp_path), biopsies.key, make_console=_make_console) as cloud:
        await cloud.device()
        await cloud.device("press-08")
        async with signed_in(cloud) as desk, signed_in(cloud, name="bob") as other:
            assert [(await desk.look()).status_code for _ in range(3)] == [200, 200, 429]
            for _ in range(2):
                refused = await desk.look("press-08")  # the person's limit, which costs the device nothing
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) > 1
            assert (await other.look()).status_code == 429  # the device's limit
            assert (await other.part("press-08")).status_code == 200


async def test_few_people_wait_at_once(cloud, monkeypatch, quick):
    monkeypatch.setattr(desk_module, "MAX_PENDING", 2)
    await cloud.device()
    async with signed_in(cloud) as desk:
        statuses = [answer.status_code for answer in await asyncio.gather(*(desk.look() for _ in range(4)))]
    assert sorted(statuses) == [200, 200, 429, 429]


async def test_one_person_leaves_room_for_others(cloud, monkeypatch, quick):
    monkeypatch.setattr(desk_module, "MAX_PENDING_OF_PERSON", 1)
    await cloud.device()
    async with signed_in(cloud) as desk, signed_in(cloud, name="bob") as other:
        *own, others = await asyncio.gather(desk.look(), desk.look(), other.look())
    assert sorted(answer.status_code for answer in own) == [200, 429]
    assert others.status_code == 200


async def test_only_known_devices_are_counted(tmp_path, biopsies):
    counted: list[str] = []

    def no_wait(_: str) -> float:
        return 0.0

    def count(device_id: str) -> float:
        counted.append(device_id)
        return 60.0

    async with running(settings_for(tmp_path), biopsies.key) as cloud:
        await cloud.device()
        desk = desk_module.LiveViewDesk(cloud.service.store, person_wait_s=no_wait, device_wait_s=count)
        with pytest.raises(SettingsError):
            await desk.view("unknown" * 1000, "lab", name="ada", actor="account:ada")
        with pytest.raises(desk_module.LiveViewLimitError):
            await desk.view("press-07", "lab", name="ada", actor="account:ada")
    assert counted == ["press-07"]


async def test_nobody_looks_without_an_entry_in_the_audit_log(cloud, monkeypatch):
    async def refuse(*_, **__):
        raise StorageError("the disk is full")

    device = await cloud.device()
    async with signed_in(cloud) as desk, answering(device, None) as (requests, _):
        await connected(cloud, "press-07")
        monkeypatch.setattr(desk_module, "note_live_view", refuse)
        assert (await desk.look()).status_code == 503
        assert not requests


async def test_the_console_of_another_process_gets_the_answer(tmp_path, biopsies, postgres_url):
    """Ask and answer cross between a console process and two ingest processes over one database."""
    settings = settings_for(tmp_path, store_url=postgres_url, metrics_listen="127.0.0.1:0")
    roles = {"make_console": _make_console}
    async with (
        running(settings, biopsies.key, role=Role.INGEST) as ingest,
        running(settings, biopsies.key, role=Role.INGEST) as second,
        running(settings, biopsies.key, role=Role.CONSOLE, **roles) as console,
    ):
        device = await ingest.device()
        picture = np.random.default_rng(1).integers(0, 255, (200, 300, 3)).astype(np.uint8)  # of many notifications
        shown = fleet_pb2.AnswerLiveViewRequest(sample=sample(Modality.IMAGE, picture))
        assert shown.ByteSize() > 30_000
        async with signed_in(console) as desk, answering(device, shown):
            await connected(ingest, "press-07")
            async with asyncio.timeout(60):  # until all processes listen
                while (found := (await desk.look()).json())["state"] != "shown":
                    await asyncio.sleep(0.2)
            assert found["sample"]["picture"]["whole_width"] == 300
        async with answering(device, None) as (requests, _):
            await connected(ingest, "press-07")
            async with signed_in(console) as desk:
                looking = asyncio.create_task(desk.look())
                async with asyncio.timeout(20):
                    while not requests:
                        await asyncio.sleep(0.01)
                shown.request_id = requests[0].request_id
                device.address = second.service.addresses.address  # behind a balancer, by another connection
                assert await status_of(device.fleet.AnswerLiveView(shown)) is grpc.StatusCode.OK
                assert (await looking).json()["state"] == "shown"


async def test_a_service_that_stops_waits_for_no_device(tmp_path, biopsies):
    async with running(settings_for(tmp_path), biopsies.key, make_console=_make_console) as cloud:
        device = await cloud.device()
        async with signed_in(cloud) as desk, answering(device, None) as (requests, _):
            await connected(cloud, "press-07")
            looking = asyncio.create_task(desk.look())
            async with asyncio.timeout(20):
                while not requests:
                    await asyncio.sleep(0.01)
            await cloud.service.stop()
            assert (await looking).json()["state"] == "no answer"
