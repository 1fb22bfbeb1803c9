"""Readings from a real broker: by topic and by field, through restarts, with passwords and TLS, and from garbage."""

import base64
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.check.report import Level
from edge.check.sources import probe_broker
from edge.settings.sources import MqttSettings
from edge.sources import open_source
from edge.sources.mqtt import MqttSource
from shared.bundle import InputSpec
from shared.errors import DataError, SettingsError
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.edge.broker import Broker, Publisher, needs_broker
from tests.edge.certificates import Authority
from tests.edge.device import Device

pytestmark = needs_broker
ROWS = InputSpec(channels=("heat", "load"), missing=True)
WINDOWS = InputSpec(channels=("heat", "load"), window_length=4, window_stride=2, missing=True)


class Listener:
    """A source on a thread of its own, and its batches."""

    def __init__(self, source: MqttSource, stop: threading.Event) -> None:
        self.source, self._stop = source, stop
        self.batches: list[SampleBatch] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for batch in self.source.batches():
            self.batches.append(batch)

    @property
    def values(self) -> list[list[float]]:
        return [row for batch in list(self.batches) for row in np.asarray(batch.values).tolist()]

    @property
    def reasons(self) -> list[str]:
        return [item.reason for batch in list(self.batches) for item in batch.rejections]

    def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, f"in vain: {self.source.health}, {self.values}, {self.reasons}"
            time.sleep(0.02)

    def until_state(self, state: str, timeout_s: float = 20) -> None:
        self.until(lambda: self.source.health.state == state, timeout_s)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    publisher = Publisher(broker.port)
    yield publisher
    publisher.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def begin(port: int, *, spec: InputSpec = ROWS, scheme: str = "mqtt", user: str = "", **more: Any) -> Listener:
        stop = threading.Event()
        values = {"topic": "plant/press", "reconnect_max_s": 1, "client_id": f"test-{len(listeners)}", **more}
        url = f"{scheme}://{user}127.0.0.1:{port}"
        settings = MqttSettings(id="press", kind="mqtt", url=url, bundle=Path("b"), **values)
        modality = Modality.SERIES if spec.window_length else Modality.TABULAR
        source = open_source(settings, modality, spec, stop)
        assert isinstance(source, MqttSource)
        listeners.append(Listener(source, stop))
        return listeners[-1]

    yield begin
    for listener in listeners:
        listener.close()


def test_records_become_rows_and_garbage_a_rejection(broker: Broker, publisher: Publisher, listen) -> None:
    press = listen(broker.port)
    press.until_state("running")
    publisher.publish("plant/press", json.dumps({"heat": 1, "load": 2}))
    publisher.publish("plant/press", b"\xff garbage")
    publisher.publish("plant/other", json.dumps({"heat": 8, "load": 8}))
    publisher.publish("plant/press", json.dumps({"heat": 3, "load": "broken"}))
    publisher.publish("plant/press", json.dumps({"heat": 5, "load": 6}))
    press.until(lambda: len(press.values) == 2)
    np.testing.assert_array_equal(press.values, [[1, 2], [5, 6]])
    assert len(press.reasons) == 2
    assert press.batches[0].origins[0].startswith("press@20")
    assert abs(press.batches[0].captured_at_s[0] - time.time()) < 10


def test_a_batched_message_becomes_aligned_rows_at_the_times_of_its_records(
    broker: Broker, publisher: Publisher, listen
) -> None:
    paths = {"records_path": "values", "name_path": "id", "value_path": "v", "time_path": "t", "quality_path": "q"}
    press = listen(broker.port, **paths, good_quality=(True,), interval_s=1.0, lateness_s=0.0)
    press.until_state("running")
    values = [
        {"id": name, "v": value + step, "q": (name, step) != ("load", 2), "t": 1_764_000_000_000 + 1000 * step}
        for name, value in (("heat", 60.0), ("load", 3.0), ("other", 1.0))
        for step in range(5)
    ]
    publisher.publish("plant/press", json.dumps({"timestamp": 1_764_000_009_000, "values": values}))
    publisher.publish("plant/press", json.dumps({"timestamp": 1_764_000_009_000}))
    press.until(lambda: len(press.values) >= 4 and press.reasons)
    np.testing.assert_array_equal(press.values[:4], [[60, 3], [61, 4], [62, np.nan], [63, 6]])
    assert press.batches[0].captured_at_s[0] == 1_764_000_001  # the end of its step
    assert press.reasons == ["has no records at 'values'."]
    assert press.source.health.left_out == {"name of no channel": 5, "bad quality": 1}


def test_topics_of_different_rates_become_aligned_windows(broker: Broker, publisher: Publisher, listen) -> None:
    channels = {
        "heat": {"topic": "plant/+/heat", "path": "value"},
        "load": {"topic": "plant/press/load", "path": "value"},
    }
    press = listen(
        broker.port, spec=WINDOWS, topic="", channels=channels, time_path="at", interval_s=1.0, lateness_s=0.0
    )
    press.until_state("running")
    for step in range(9):
        for part in (0.2, 0.6):
            publisher.publish("plant/press/heat", json.dumps({"at": 1e9 + step + part, "value": step + part}))
        if step % 2 == 0:
            publisher.publish("plant/press/load", json.dumps({"at": 1e9 + step + 0.7, "value": 100 + step}))
    press.until(lambda: len(press.values) == 3)
    windows = np.array(press.values)
    np.testing.assert_allclose(windows[:, :, 0], [[0.6, 1.6, 2.6, 3.6], [2.6, 3.6, 4.6, 5.6], [4.6, 5.6, 6.6, 7.6]])
    np.testing.assert_array_equal(windows[0, :, 1], [100, np.nan, 102, np.nan])
    assert press.batches[0].captured_at_s[0] == 1e9 + 4


def test_messages_sent_while_the_source_is_away_arrive_afterwards(broker: Broker, publisher: Publisher, listen) -> None:
    press = listen(broker.port, client_id="the-same")
    press.until_state("running")
    press.close()
    for value in range(50):
        publisher.publish("plant/press", json.dumps({"heat": value, "load": 0}))
    again = listen(broker.port, client_id="the-same")
    again.until(lambda: len(again.values) == 50)
    assert [row[0] for row in again.values] == list(range(50))


def test_a_broker_that_restarts_or_hangs_is_found_again(broker: Broker, listen) -> None:
    press = listen(broker.port, keepalive_s=5)
    press.until_state("running")
    broker.stop()
    press.until_state("disconnected")
    broker.start()
    press.until_state("running")
    assert press.source.health.reconnects >= 1
    broker.pause(signal.SIGSTOP)
    press.until_state("disconnected", 30)
    broker.pause(signal.SIGCONT)
    press.until_state("running")
    publisher = Publisher(broker.port)
    publisher.publish("plant/press", json.dumps({"heat": 1, "load": 2}))
    press.until(lambda: press.values == [[1, 2]])
    publisher.close()


def test_a_silent_channel_is_reported(broker: Broker, publisher: Publisher, listen) -> None:
    press = listen(broker.port, silent_after_s=1.0)
    press.until_state("running")
    press.until_state("silent")
    assert "any channel" in press.source.health.detail
    publisher.publish("plant/press", json.dumps({"heat": 1, "load": 2}))
    press.until_state("running")


def test_retained_messages_are_of_an_earlier_time(broker: Broker, publisher: Publisher, listen) -> None:
    publisher.publish("plant/press", json.dumps({"heat": 9, "load": 9}), retain=True)
    press = listen(broker.port)
    press.until(lambda: press.source.health.skipped == 1)
    publisher.publish("plant/press", json.dumps({"heat": 1, "load": 2}))
    press.until(lambda: press.values == [[1, 2]])


def test_a_rate_is_kept(broker: Broker, publisher: Publisher, listen) -> None:
    press = listen(broker.port, rate_per_s=2)
    press.until_state("running")
    for value in range(40):
        publisher.publish("plant/press", json.dumps({"heat": value, "load": 0}))
    press.until(lambda: len(press.values) + press.source.health.skipped == 40)
    assert 1 <= len(press.values) <= 10


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_is_said_and_the_right_one_may_stand_in_a_file(
    tmp_path: Path, listen, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    passwords = tmp_path / "passwords"
    # mosquitto's own format: PBKDF2-SHA512, 101 rounds
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", b"secret", salt, 101)
    passwords.write_text(f"plant:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n")
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.start()
    try:
        wrong = listen(broker.port, user="plant:wrong@", protocol=protocol)
        wrong.until_state("refused")
        assert "wrong" not in str(wrong.source.health)
        assert "secret" not in caplog.text
        (tmp_path / "password").write_text("secret\n")
        right = listen(broker.port, user="plant@", password_file=tmp_path / "password", protocol=protocol)
        right.until_state("running")
        # The check before a start gives the same reasons.
        refused = probe_broker("broker", settings_of(broker, "plant:wrong@", protocol=protocol))
        assert refused.level is Level.WARNING
        assert "correct user and password" in refused.text
        assert "wrong" not in refused.text
        assert probe_broker("broker", settings_of(broker, "plant:secret@", protocol=protocol)).level is Level.OK
    finally:
        broker.stop()


def settings_of(broker: Broker, user: str, **more: Any) -> MqttSettings:
    url = f"mqtt://{user}127.0.0.1:{broker.port}"
    return MqttSettings(id="press", kind="mqtt", url=url, bundle=Path("b"), topic="t", **more)


def test_mutual_tls_and_a_stranger_s_broker_is_not_believed(tmp_path: Path, listen, authority: Authority) -> None:
    files = {"ca": authority.pem, "other": Authority("Another").pem}
    files["key"], files["certificate"] = authority.issue("localhost", server=True)
    files["client_key"], files["client"] = authority.issue("press")
    paths = {}
    for name, data in files.items():
        paths[name] = tmp_path / f"{name}.pem"
        paths[name].write_bytes(data)
    broker = Broker(
        tmp_path,
        "allow_anonymous true",
        "require_certificate true",
        *(f"{key} {paths[name]}" for key, name in (("cafile", "ca"), ("certfile", "certificate"), ("keyfile", "key"))),
    )
    broker.start()
    try:
        own = {"certificate": paths["client"], "key": paths["client_key"]}
        stranger = listen(broker.port, scheme="mqtts", ca=paths["other"], **own)
        stranger.until_state("disconnected")
        assert "certificate verify failed" in stranger.source.health.detail
        listen(broker.port, scheme="mqtts", ca=paths["ca"], **own).until_state("running")
        with pytest.raises(DataError, match="not usable for TLS"):
            listen(broker.port, scheme="mqtts", ca=tmp_path / "absent.pem")
    finally:
        broker.stop()


@pytest.mark.parametrize("topic", ["plant/#/heat", "plant/a+", "", "a\0b"])
def test_a_wrong_topic_is_refused_at_the_start(topic: str, listen) -> None:
    with pytest.raises(SettingsError, match="topic"):
        listen(1, topic="", channels={"heat": {"topic": topic or "x"}, "load": {"topic": topic}})


def test_a_channel_that_the_bundle_has_not_is_refused(listen) -> None:
    with pytest.raises(SettingsError, match="no channel 'flow' in its bundle, which has 'heat', 'load'"):
        listen(1, channels={"flow": {"path": "x"}})


def test_an_agent_screens_messages_of_a_broker_and_reports_its_health(
    broker: Broker, publisher: Publisher, device: Device
) -> None:
    url = f"mqtt://127.0.0.1:{broker.port}"
    bundle = device.settings["sources"][0]["bundle"]
    device.settings["sources"] = [{"id": "press", "kind": "mqtt", "url": url, "topic": "plant/#", "bundle": bundle}]
    device.start()
    device.until(lambda: device.status().get("sources", {}).get("press", {}).get("health") == "running")
    publisher.publish("plant/press", json.dumps([{"heat": 60, "load": 1, "flow": 400}] * 20))
    publisher.publish("plant/press", json.dumps({"heat": "x", "load": 1, "flow": 400}))
    device.until(lambda: device.counters().get("samples_screened") == 20)
    device.until(lambda: device.counters().get("samples_rejected") == 1)  # its row is no second rejection
    broker.stop()
    device.until(lambda: device.status()["sources"]["press"]["health"] == "disconnected")
    assert any("press: disconnected" in problem for problem in device.status()["problems"])
    assert device.terminate() == 0
