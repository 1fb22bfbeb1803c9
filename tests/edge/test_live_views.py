"""Live views on the device: what is shown, the switch, the limit, and the log."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.counters import Counters
from edge.operation.latency import LatencyHistogram
from edge.routing.budget import UploadBudget
from edge.routing.newest_sample import newest_sample
from edge.routing.router import ACCEPT, ALARM
from edge.screener import load_screener
from edge.settings import AgentSettings
from edge.uplink.events import EventReader
from edge.uplink.link import LinkState
from edge.uplink.live_views import ANSWER_S, LiveViews
from edge.uplink.verdicts import VerdictStore
from shared.bundle import Bundle
from shared.live_views import NewestSample, shown_sample
from shared.modality import Modality
from shared.samples import Route, SampleBatch, Screening
from tests.edge.bundles import normal_images, normal_rows, normal_windows
from tests.edge.device import Device
from tests.edge.memory_cloud import MemoryCloud, MemoryTransport, failure
from vedette.v1 import detection_pb2, fleet_pb2

SCREENING = Screening(3.5, 0.01, True, Route.ACCEPT, "plant-1", "c", "int8_openvino")
ROW = NewestSample(Modality.TABULAR, 1_700_000_000.0, "readings.csv:7", np.ones(3, np.float32), SCREENING)


class Listening(MemoryTransport):
    """A line that keeps the answers to live views; `fails` makes each of them fail."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(MemoryCloud())
        self.answers: list[fleet_pb2.AnswerLiveViewRequest] = []
        self.arrived, self._fails = asyncio.Event(), fails

    async def answer_live_view(self, request: fleet_pb2.AnswerLiveViewRequest, timeout_s: float) -> None:
        self.answers.append(request)
        self.arrived.set()
        if self._fails:
            raise failure(grpc.StatusCode.NOT_FOUND)


def settings_for(folder: Path, **changes: Any) -> AgentSettings:
    return AgentSettings.model_validate({"state_dir": folder, **changes})


def views(
    settings: AgentSettings, newest: NewestSample | None = ROW, clock: Callable[[], float] = time.monotonic
) -> tuple[LiveViews, Counters]:
    counters, sources = Counters(), {"plant": lambda: newest}
    budget, permitted = UploadBudget(settings.router, clock), settings.permits_live_views
    return LiveViews(settings.live_view, sources, counters, budget, permitted=permitted, clock=clock), counters


def asked(source: str = "plant", number: int = 1) -> detection_pb2.LiveViewRequested:
    return detection_pb2.LiveViewRequested(request_id=bytes([number] * 16), source_id=source, asked_by="ada")


async def answers(
    live: LiveViews, requests: list[detection_pb2.LiveViewRequested], *, fails: bool = False
) -> Listening:
    """Ask one after the other; the transport has all answers."""
    line = Listening(fails=fails)
    running = asyncio.create_task(live.run(line, LinkState("nowhere:1")))
    async with asyncio.timeout(20):
        for request in requests:
            line.arrived.clear()
            live.ask(request)
            await line.arrived.wait()
    running.cancel()
    return line


@pytest.mark.parametrize(
    ("bundle", "modality", "samples"),
    [
        ("tabular", Modality.TABULAR, normal_rows(6).astype(np.float32)),
        ("series", Modality.SERIES, normal_windows(6).astype(np.float32)),
        ("images", Modality.IMAGE, normal_images(6)),
    ],
)
def test_the_newest_sample_of_a_batch_is_kept_alone(
    bundle: str, modality: Modality, samples: np.ndarray, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    signed: Bundle = request.getfixturevalue(bundle)
    screener = load_screener(signed, "int8_onnxruntime", 8, tmp_path)
    batch = SampleBatch("plant", modality, samples, np.arange(6.0), [f"r:{place}" for place in range(6)])
    screened = screener.screen(batch)
    codes = np.full(6, ACCEPT, np.int8)
    codes[-1] = ALARM
    newest = newest_sample(batch, screened, codes, screener)
    assert np.array_equal(newest.values, samples[-1])
    assert newest.values.base is None  # or one row would keep its whole batch in memory
    assert (newest.captured_at_s, newest.origin, newest.screening.route) == (5.0, "r:5", Route.ALARM)
    assert newest.screening.p_value == screened.p_values[-1]
    assert newest.screening.bundle_id == signed.manifest.bundle_id


async def test_a_person_gets_the_newest_sample_and_the_device_logs_who(tmp_path, caplog):
    live, counters = views(settings_for(tmp_path))
    with caplog.at_level(logging.ERROR, logger="vedette.live_view"):
        caplog.handler.setLevel(logging.NOTSET)
        line = await answers(live, [asked()])
    (answer,) = line.answers
    assert answer.request_id == bytes([1] * 16)
    assert np.array_equal(shown_sample(answer.sample).values, ROW.values)
    assert counters.snapshot()["live_views"] == 1
    assert live.last_viewer == "ada"
    (logged,) = [record.fields for record in caplog.records if record.getMessage() == "live_view"]
    assert logged == {"source": "plant", "asked_by": "ada"}


@pytest.mark.parametrize(
    ("changes", "source", "newest", "refusal"),
    [
        ({"live_view": {"allowed": False}}, "plant", ROW, fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED),
        ({"router": {"mode": "edge_only"}}, "plant", ROW, fleet_pb2.LIVE_VIEW_REFUSAL_NOT_PERMITTED),
        ({}, "other", ROW, fleet_pb2.LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE),
        ({}, "plant", None, fleet_pb2.LIVE_VIEW_REFUSAL_NO_SAMPLE),
    ],
)
async def test_a_refusal_has_its_reason_and_no_sample(tmp_path, changes, source, newest, refusal):
    live, counters = views(settings_for(tmp_path, **changes), newest)
    line = await answers(live, [asked(source)])
    (answer,) = line.answers
    assert (answer.WhichOneof("answer"), answer.refusal) == ("refusal", refusal)
    assert counters.snapshot()["live_views"] == 0
    assert counters.snapshot()["live_views_refused"] == 1
    assert live.last_viewer == ""


async def test_views_beyond_the_devices_own_limit_are_refused(tmp_path):
    live, counters = views(settings_for(tmp_path, live_view={"max_per_minute": 0.1}))
    line = await answers(live, [asked(number=number) for number in range(1, 4)])
    assert [answer.HasField("sample") for answer in line.answers] == [True, False, False]
    assert {answer.refusal for answer in line.answers[1:]} == {fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN}
    assert (counters.snapshot()["live_views"], counters.snapshot()["live_views_refused"]) == (1, 2)


async def test_an_answer_that_nobody_takes_ends_nothing_and_counts_as_no_view(tmp_path, caplog):
    live, counters = views(settings_for(tmp_path))
    line = await answers(live, [asked(number=1), asked(number=2)], fails=True)
    assert [answer.request_id[0] for answer in line.answers] == [1, 2]
    assert (counters.snapshot()["live_views"], live.last_viewer) == (0, "")
    logged = [record.fields for record in caplog.records if record.getMessage() == "live_view_not_delivered"]
    assert [(fields["asked_by"], fields["code"]) for fields in logged] == [("ada", "NOT_FOUND")] * 2


async def test_a_request_that_waited_too_long_is_not_answered(tmp_path):
    now_s = 100.0
    live, counters = views(settings_for(tmp_path), clock=lambda: now_s)
    live.ask(asked(number=1))
    now_s += ANSWER_S + 0.1
    line = await answers(live, [asked(number=2)])
    assert [answer.request_id[0] for answer in line.answers] == [2]
    assert (counters.snapshot()["live_views"], counters.snapshot()["live_views_refused"]) == (1, 0)


async def test_views_spend_the_upload_budget_and_are_refused_when_it_is_empty(tmp_path):
    now_s = 100.0
    limited = {"router": {"max_bytes_per_s": 10.0, "burst_s": 1.0}}
    live, counters = views(settings_for(tmp_path, **limited), clock=lambda: now_s)
    first = await answers(live, [asked(number=1), asked(number=2)])
    assert [answer.HasField("sample") for answer in first.answers] == [True, False]
    assert first.answers[1].refusal == fleet_pb2.LIVE_VIEW_REFUSAL_TOO_OFTEN
    assert counters.snapshot()["bytes_live_views"] == first.answers[0].ByteSize()
    now_s += 3600  # the debt is paid back
    later = await answers(live, [asked(number=3)])
    assert later.answers[0].HasField("sample")


async def test_requests_come_between_events_and_do_not_move_the_cursor(tmp_path):
    cloud = MemoryCloud()
    cloud.events.append(
        detection_pb2.Event(cursor=1, bundle_changed=detection_pb2.BundleChanged(bundle_name="n", bundle_id="b"))
    )
    store, found = VerdictStore(tmp_path / "verdicts.db"), asyncio.Event()
    requests: list[detection_pb2.LiveViewRequested] = []

    def on_request(request: detection_pb2.LiveViewRequested) -> None:
        requests.append(request)
        found.set()

    class WithRequest(MemoryTransport):
        def watch(self, cursor: int) -> Any:
            stream = super().watch(cursor)
            read, first = stream.read, [detection_pb2.Event(cursor=0, live_view_requested=asked())]

            async def next_event() -> detection_pb2.Event | None:
                return first.pop() if first else await read()

            stream.read = next_event
            return stream

    reader = EventReader(
        settings_for(tmp_path).uplink, store, Counters(), LatencyHistogram(), lambda: None, on_live_view=on_request
    )
    running = asyncio.create_task(reader.run(WithRequest(cloud), LinkState("nowhere:1")))
    async with asyncio.timeout(20):
        await found.wait()
        while store.cursor != 1:
            await asyncio.sleep(0.02)
    running.cancel()
    assert requests == [asked()]
    store.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_status_says_whether_people_may_look(device: Device, allowed: bool) -> None:
    device.settings["live_view"] = {"allowed": allowed}
    assert device.run("--until-done") == 0
    assert device.status()["permits_live_views"] is False  # no uplink, so nobody can ask
    assert device.counters()["live_views"] == 0
