"""Alarms reach people: soon, few, signed, each at least once, through dead sinks and power cuts."""

import json
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.alarms import Alarm, AlarmDelivery
from edge.alarms import outbox as outbox_module
from edge.alarms.grouping import Grouping
from edge.alarms.outbox import Outbox
from edge.counters import Counters
from edge.settings import AgentSettings
from edge.settings.alarms import FileSinkSettings, MqttSinkSettings, WebhookSettings
from shared.errors import DataError
from shared.status import SinkStatus
from shared.webhooks import signature
from tests.edge.broker import Broker, needs_broker
from tests.edge.device import Device
from tests.webhook import SECRET, Hook


def alarm(number: int = 0, source_id: str = "press", p_value: float = 1e-6) -> Alarm:
    return Alarm(source_id, f"row {number}", p_value, 1.8e9 + number, "", "plant-1")


@pytest.fixture
def deliver(tmp_path: Path) -> Iterator[Callable[..., AlarmDelivery]]:
    opened: list[AlarmDelivery] = []

    def begin(*sinks: Any, counters: Counters | None = None) -> AlarmDelivery:
        delivery = AlarmDelivery(sinks, tmp_path / "alarms.db", counters or Counters(), lambda: "device-7")
        delivery.start()
        opened.append(delivery)
        return delivery

    yield begin
    for delivery in opened:
        delivery.stop(1.0)


def until(condition: Callable[[], object], timeout_s: float = 15) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "in vain"
        time.sleep(0.02)


def webhook(hook: Hook, secret: Path, **more: Any) -> WebhookSettings:
    return WebhookSettings(id="hook", kind="webhook", url=hook.url, secret_file=secret, **more)


def test_a_webhook_gets_a_signed_message_at_once(hook: Hook, secret: Path, deliver) -> None:
    deliver(webhook(hook, secret)).tell(alarm())
    until(lambda: hook.requests)
    headers, body = hook.requests[0]
    assert headers["Vedette-Signature"] == f"v1={signature(SECRET, headers['Vedette-Timestamp'], body)}"
    assert abs(int(headers["Vedette-Timestamp"]) - time.time()) < 10
    told = json.loads(body)
    assert headers["Vedette-Alarm-Id"] == told.pop("alarm_id")
    assert told == {
        "event": "alarm",
        "device_id": "device-7",
        "source_id": "press",
        "origin": "row 0",
        "captured_at": "2027-01-15T08:00:00.000Z",
        "p_value": 1e-6,
        "sample_id": "",
        "bundle_id": "plant-1",
        "further_alarms": 0,
    }


@pytest.mark.parametrize("status", [500, 404, 302, None])
def test_a_server_that_does_not_take_it_is_asked_again(hook: Hook, secret: Path, deliver, status: int | None) -> None:
    hook.status = status
    counters = Counters()
    delivery = deliver(webhook(hook, secret, timeout_s=0.3), counters=counters)
    delivery.tell(alarm())
    until(lambda: delivery.status()["hook"].error)
    assert delivery.status()["hook"].waiting == 1
    hook.status = 200
    until(lambda: counters.snapshot()["alarms_sent"] == 1)
    assert len({told["alarm_id"] for told in hook.bodies}) == 1
    until(lambda: delivery.status()["hook"] == SinkStatus())


def test_a_sink_that_hangs_holds_up_no_other(hook: Hook, secret: Path, tmp_path: Path, deliver) -> None:
    hook.status = None
    delivery = deliver(
        webhook(hook, secret, timeout_s=5), FileSinkSettings(id="file", kind="file", path=tmp_path / "alarms.jsonl")
    )
    started_s = time.monotonic()
    delivery.tell(alarm())
    assert time.monotonic() - started_s < 1.0
    until(lambda: (tmp_path / "alarms.jsonl").stat().st_size > 0, 2)


def test_alarms_raised_before_a_restart_are_sent_after_it(hook: Hook, secret: Path, deliver) -> None:
    hook.status = 503
    first = deliver(webhook(hook, secret, quiet_s=0))
    for number in range(5):
        first.tell(alarm(number))
    until(lambda: hook.requests)
    first.stop(1.0)
    hook.requests.clear()
    hook.status = 200
    deliver(webhook(hook, secret, quiet_s=0))
    until(lambda: len(hook.requests) == 5)
    assert [told["origin"] for told in hook.bodies] == [f"row {number}" for number in range(5)]


def test_alarms_of_one_source_are_gathered_and_the_worst_is_named(hook: Hook, secret: Path, deliver) -> None:
    delivery = deliver(webhook(hook, secret, quiet_s=1.0))
    for number in range(20):
        delivery.tell(alarm(number, p_value=1e-9 if number == 13 else 1e-6))
    delivery.tell(alarm(99, source_id="pump"))
    until(lambda: len(hook.requests) == 3)
    by_source = [(told["source_id"], told["origin"], told["further_alarms"]) for told in hook.bodies]
    assert by_source == [("press", "row 0", 0), ("pump", "row 99", 0), ("press", "row 13", 18)]


def test_alarms_held_back_at_the_end_are_kept(hook: Hook, secret: Path, deliver) -> None:
    delivery = deliver(webhook(hook, secret, quiet_s=60))
    for number in range(3):
        delivery.tell(alarm(number))
    until(lambda: len(hook.requests) == 1)
    delivery.stop(2.0)
    assert [told["further_alarms"] for told in hook.bodies] == [0, 1]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["a", "b", "c"]), st.floats(1e-9, 1.0)), max_size=80),
    st.floats(0, 30),
    st.floats(1, 60),
)
def test_no_alarm_goes_uncounted_and_no_limit_is_broken(
    raised: list[tuple[float, str, float]], quiet_s: float, per_minute: float
) -> None:
    now = [0.0]
    grouping = Grouping(quiet_s, per_minute, lambda: now[0])
    told: list[tuple[float, str, int, float]] = []
    for after_s, source_id, p_value in raised:
        now[0] += after_s
        found = [grouping.add(alarm(0, source_id, p_value)), *grouping.due()]
        told += [
            (now[0], item.alarm.source_id, 1 + item.further, item.alarm.p_value) for item in found if item is not None
        ]
    rest = grouping.rest()
    for name in "abc":
        stood_for = sum(count for _, source_id, count, _ in told if source_id == name)
        stood_for += sum(1 + item.further for item in rest if item.alarm.source_id == name)
        assert stood_for == sum(source_id == name for _, source_id, _ in raised)
        moments = [at_s for at_s, source_id, _, _ in told if source_id == name]
        assert all(after - before >= quiet_s for before, after in pairwise(moments))
    assert len(told) <= max(per_minute, 1.0) + now[0] * per_minute / 60 + 1
    if raised:
        worst = min(p_value for _, _, p_value in raised)
        assert worst in [p_value for *_, p_value in told] + [item.alarm.p_value for item in rest]


def test_a_sink_hears_of_its_own_sources(hook: Hook, secret: Path, deliver) -> None:
    delivery = deliver(webhook(hook, secret, sources=("pump",)))
    delivery.tell(alarm())
    delivery.tell(alarm(source_id="pump"))
    until(lambda: hook.requests)
    time.sleep(0.3)
    assert [told["source_id"] for told in hook.bodies] == ["pump"]


def test_lines_of_a_file_are_whole_and_the_file_is_bounded(tmp_path: Path, deliver) -> None:
    path = tmp_path / "deep" / "alarms.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"cut')
    counters = Counters()
    settings = FileSinkSettings(id="file", kind="file", path=path, quiet_s=0, max_per_minute=6000, max_bytes=4096)
    delivery = deliver(settings, counters=counters)
    for number in range(40):
        delivery.tell(alarm(number))
    until(lambda: counters.snapshot()["alarms_sent"] == 40)
    lines = [*path.with_name("alarms.jsonl.1").read_text().splitlines(), *path.read_text().splitlines()]
    whole = [json.loads(line)["origin"] for line in lines if line != '{"cut']
    assert whole == [f"row {number}" for number in range(40 - len(whole), 40)]
    assert path.stat().st_size < 4096 + 400


def test_a_disk_that_is_full_keeps_the_alarm_waiting(tmp_path: Path, deliver) -> None:
    path = tmp_path / "alarms.jsonl"
    path.symlink_to("/dev/full")
    assert stat.S_ISCHR(path.stat().st_mode)
    delivery = deliver(FileSinkSettings(id="file", kind="file", path=path))
    delivery.tell(alarm())
    until(lambda: "space" in str(delivery.status()["file"].error))
    path.unlink()
    until(lambda: path.exists() and path.read_text().endswith("}\n"))


def test_an_outbox_that_refuses_leaves_the_alarm_in_memory(
    hook: Hook, secret: Path, deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Outbox, "add", refuse)
    counters = Counters()
    delivery = deliver(webhook(hook, secret), counters=counters)
    delivery.tell(alarm())
    until(lambda: counters.snapshot()["alarms_sent"] == 1)
    assert delivery.status()["hook"].waiting == 0


def test_the_outbox_is_bounded_and_old_alarms_expire(
    hook: Hook, secret: Path, deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_WAITING", 10)
    hook.status, counters = 500, Counters()
    delivery = deliver(webhook(hook, secret, quiet_s=0, max_per_minute=6000, max_age_s=1.5), counters=counters)
    for number in range(25):
        delivery.tell(alarm(number))
    assert delivery.status()["hook"].waiting == 10
    assert counters.snapshot()["alarms_dropped"] == 15
    until(lambda: counters.snapshot()["alarms_dropped"] == 25)


def test_a_secret_that_is_absent_or_short_is_refused(hook: Hook, tmp_path: Path, deliver) -> None:
    short = tmp_path / "short"
    short.write_text("swordfish")
    with pytest.raises(DataError, match="holds 9 bytes, and 16 are needed: openssl rand"):
        deliver(webhook(hook, short))
    with pytest.raises(DataError, match="cannot be used"):
        deliver(webhook(hook, tmp_path / "absent"))


def test_sinks_of_unknown_sources_or_of_one_name_are_refused() -> None:
    sink = {"id": "a", "kind": "file", "path": "a"}
    source = {"id": "s", "kind": "replay", "path": "p", "bundle": "b"}
    for sinks, said in (([sink, sink], "same id"), ([{**sink, "sources": ["x"]}], "no source is called x")):
        with pytest.raises(ValueError, match=said):
            AgentSettings.model_validate({"state_dir": "s", "sources": [source], "alarms": sinks})


@needs_broker
def test_a_broker_gets_alarms_once_it_is_reachable(tmp_path: Path, deliver) -> None:
    broker, heard = Broker(tmp_path), []
    url = f"mqtt://127.0.0.1:{broker.port}"
    settings = MqttSinkSettings(
        id="plant", kind="mqtt", url=url, topic="alarms/{source}", timeout_s=0.5, reconnect_max_s=1
    )
    delivery = deliver(settings)
    delivery.tell(alarm())
    until(lambda: "cannot be reached" in str(delivery.status()["plant"].error))
    broker.start()
    try:
        listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        listener.on_message = lambda client, data, message: heard.append((message.topic, json.loads(message.payload)))
        listener.connect("127.0.0.1", broker.port)
        listener.subscribe("alarms/#", 1)
        listener.loop_start()
        until(lambda: delivery.status()["plant"] == SinkStatus(), 20)
        delivery.tell(alarm(5, source_id="pump"))
        until(lambda: any(topic == "alarms/pump" and told["origin"] == "row 5" for topic, told in heard))
        listener.disconnect()
        listener.loop_stop()
    finally:
        broker.stop()


def test_an_agent_s_alarm_outlives_kill_9(device: Device, hook: Hook, secret: Path) -> None:
    hook.status = 503
    device.settings["alarms"] = [{"id": "hook", "kind": "webhook", "url": hook.url, "secret_file": secret}]
    device.settings["router"] = {"mode": "edge_only", "false_alarms_per_day": 1e6}
    device.settings["sources"][0]["rate_per_s"] = 300
    device.start()
    device.until(lambda: hook.requests)
    device.until(lambda: any("alarms to hook" in problem for problem in device.status().get("problems", [])))
    device.kill()
    alarm_id = hook.bodies[0]["alarm_id"]
    hook.requests.clear()
    hook.status = 200
    device.start()
    device.until(lambda: hook.requests)
    assert hook.bodies[0]["alarm_id"] == alarm_id
    assert hook.bodies[0]["source_id"] == "plant"
    device.until(lambda: device.counters().get("alarms_sent", 0) >= 1)
    assert device.terminate() == 0


def test_each_sink_can_be_tried(device: Device, hook: Hook, secret: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "vedette", "edge", "test-alarms", "--config", device.config]

    def tried() -> subprocess.CompletedProcess[str]:
        device.write()
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "names no sink" in tried().stderr
    sink = {"id": "hook", "kind": "webhook", "url": hook.url, "secret_file": secret}
    device.settings["alarms"] = [sink, {"id": "log", "kind": "file", "path": tmp_path / "alarms.jsonl"}]
    shown = tried()
    assert (shown.returncode, shown.stdout) == (0, "hook: delivered\nlog: delivered\n")
    assert hook.bodies[0]["event"] == "test"
    hook.status = 401
    shown = tried()
    assert shown.returncode != 0
    assert "hook: the server answers 401 Unauthorized" in shown.stdout
    assert "Not delivered to hook" in shown.stderr


def test_a_delivered_alarm_that_the_disk_will_not_forget_is_sent_once_and_holds_up_no_other(
    hook: Hook, secret: Path, deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    delivery = deliver(webhook(hook, secret, quiet_s=0))
    monkeypatch.setattr(Outbox, "remove", refuse)
    for number in range(3):
        delivery.tell(alarm(number))
    until(lambda: len(hook.requests) == 3)
    time.sleep(0.5)
    assert [told["origin"] for told in hook.bodies] == ["row 0", "row 1", "row 2"]
    assert delivery.status()["hook"].waiting == 0


@needs_broker
def test_a_topic_that_the_broker_forbids_is_no_delivery(tmp_path: Path, deliver) -> None:
    (tmp_path / "acl").write_text("topic read #\n")
    broker = Broker(tmp_path, "allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    broker.start()
    try:
        url = f"mqtt://127.0.0.1:{broker.port}"
        delivery = deliver(MqttSinkSettings(id="plant", kind="mqtt", url=url, topic="alarms", timeout_s=1.0))
        delivery.tell(alarm())
        until(lambda: "refuses 'alarms'" in str(delivery.status()["plant"].error))
        assert delivery.status()["plant"].waiting == 1
    finally:
        broker.stop()


@pytest.mark.parametrize(
    "url", ["mqtt://h:99999", "mqtt://h:abc", "mqtt://u:pa#ss@h", "mqtt://u:12?3@h", "mqtt://:1883"]
)
def test_a_broker_s_address_is_checked(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        MqttSinkSettings(id="a", kind="mqtt", url=url, topic="t")


@pytest.mark.parametrize("url", ["http://user:topsecret@host/x", "http://h:abc/", "https://:443/"])
def test_a_webhook_s_address_is_checked(url: str, secret: Path) -> None:
    with pytest.raises(ValueError, match="url"):
        WebhookSettings(id="a", kind="webhook", url=url, secret_file=secret)


def test_held_alarms_become_one_message_at_the_release() -> None:
    now = [0.0]
    grouping = Grouping(10, 60, lambda: now[0])
    assert grouping.add(alarm()) is not None
    assert grouping.add(alarm()) is None
    grouping.hold("press")
    now[0] += 100
    assert [grouping.add(alarm(p_value=p)) for p in (1e-5, 1e-9, 1e-6)] == [None] * 3
    assert grouping.due() == []
    grouping.release("press")
    (message,) = grouping.due()
    assert (message.alarm.p_value, message.further) == (1e-9, 2)  # the one before the hold is part of the warning
    grouping.hold("press")
    grouping.add(alarm())
    assert grouping.rest() == []
