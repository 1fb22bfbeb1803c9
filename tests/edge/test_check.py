"""`vedette edge check`: each fault by name, with its exit code and the next step, before anything starts."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from edge.check import Finding, Level, check, check_start, exit_code, finding_lines
from edge.settings import AgentSettings
from shared.bundle import Bundle
from shared.cli import build
from tests.edge.bundles import normal_rows, tabular_bundle
from tests.edge.certificates import DAY
from tests.edge.cloud_double import CloudDouble
from tests.edge.conftest import Enrol
from tests.edge.device import Device, write_csv
from tests.edge.video_files import UNREADABLE, without_codec


def findings_of(device: Device) -> dict[str, Finding]:
    device.write()
    return {finding.name: finding for finding in check(AgentSettings.load(device.config))}


def source_of(device: Device) -> dict[str, Any]:
    source: dict[str, Any] = device.settings["sources"][0]
    return source


def test_a_device_that_can_work_is_well_and_nothing_is_left_behind(device: Device) -> None:
    found = findings_of(device)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert not device.state.exists()
    assert list(finding_lines(list(found.values())))[-1] == "All is well."
    assert found["source plant: columns"].text == "all 3 channels of the bundle are there"


def test_wrong_columns_are_an_error_with_the_exit_code_of_data(device: Device) -> None:
    for kind in ("replay", "tail"):
        path = write_csv(device.folder / f"{kind}.csv", normal_rows(5), ("heat", "load", "wrong"))
        source_of(device).update(kind=kind, path=path)
        found = findings_of(device)["source plant: columns"]
        assert found.level is Level.ERROR
        assert found.problem is not None
        assert found.problem.exit_code == 4
        assert "flow" in found.text


@pytest.mark.parametrize(
    ("changes", "name", "level", "words"),
    [
        ({"kind": "tail", "path": "/nowhere/log.csv"}, "input", Level.WARNING, "waits for it"),
        ({"path": "/nowhere/rows.csv"}, "input", Level.ERROR, "Correct path of source 'plant'"),
        ({"bundle": "/nowhere/x.bundle"}, "bundle", Level.ERROR, "no such bundle"),
        ({"kind": "images"}, "columns", Level.ERROR, "choose another kind"),
        ({"kind": "stdin"}, "columns", Level.OK, "3 channels"),
        ({"kind": "plugin", "plugin": "opcua"}, "columns", Level.ERROR, "install the package"),
        ({"kind": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "a/#/b"}, "columns", Level.ERROR, "no topic filter"),
        ({"kind": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "a"}, "broker", Level.WARNING, "cannot be reached"),
        ({"kind": "camera", "url": "/dev/video99"}, "input", Level.WARNING, "no such device"),
        ({"kind": "camera", "url": "rtsp://u:p@127.0.0.1:1/s"}, "camera", Level.WARNING, "rtsp://127.0.0.1:1/s cannot"),
        ({"kind": "camera", "url": "/nowhere/a.mp4"}, "input", Level.ERROR, "Correct the url"),
        ({"kind": "camera", "url": __file__}, "input", Level.ERROR, "cannot be opened (Invalid data"),
        ({"kind": "camera", "url": UNREADABLE}, "input", Level.WARNING, "(Input/output error)"),
    ],
)
def test_each_fault_of_a_source_is_named(
    device: Device, changes: dict[str, Any], name: str, level: Level, words: str
) -> None:
    source = source_of(device)
    if changes.get("kind", "replay") not in ("replay", "tail", "images"):
        del source["path"]
    if "kind" in changes and changes["kind"] == "images":
        source["path"] = device.folder
    source.update(changes)
    found = findings_of(device)[f"source plant: {name}"]
    assert (found.level, words in found.text) == (level, True), found


def test_a_damaged_video_is_a_warning(device: Device, images: Bundle) -> None:
    images.save(device.folder / "images.bundle")
    source = {"id": "plant", "kind": "camera", "url": without_codec(device.folder / "a.mp4")}
    device.settings["sources"] = [source | {"bundle": device.folder / "images.bundle"}]
    found = findings_of(device)
    assert found["source plant: input"].level is Level.WARNING
    assert "no known codec" in found["source plant: input"].text
    assert exit_code(list(found.values())) == 0


def test_a_source_without_bundle_and_uplink_is_an_error_and_no_folder_is_made(device: Device, images: Bundle) -> None:
    source = source_of(device)
    del source["bundle"]
    source["bundle_name"] = "plant"
    assert "set its bundle, or enrol" in findings_of(device)["source plant: bundle"].text
    images.save(device.folder / "images.bundle")
    source.update(kind="images", path=device.folder, watch=True, after="move", done=device.folder.parent / "done")
    source["bundle"] = device.folder / "images.bundle"
    assert findings_of(device)["source plant: modality"].level is Level.OK
    assert not (device.folder.parent / "done").exists()
    source["path"] = "/nowhere"
    assert findings_of(device)["source plant: input"].level is Level.ERROR


def test_a_bundle_of_a_foreign_key_is_an_error(device: Device) -> None:
    tabular_bundle(Ed25519PrivateKey.generate()).save(Path(source_of(device)["bundle"]))
    found = findings_of(device)["source plant: bundle"]
    assert found.problem is not None
    assert found.problem.exit_code == 5
    assert "not signed by a trusted key" in found.text


def test_a_missing_key_the_disk_and_the_port_are_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        device.settings["metrics"] = {"address": f"127.0.0.1:{other.getsockname()[1]}"}
        device.settings["spool"] = {"max_bytes": 2**60}
        device.settings["bundle_key"] = "/nowhere/key.pem"
        found = findings_of(device)
    assert "Set another metrics.address" in found["metrics port"].text
    assert found["disk"].level is Level.WARNING
    assert "lower spool.max_bytes" in found["disk"].text
    assert found["bundle key"].level is Level.ERROR
    assert exit_code(list(found.values())) == 7
    assert found["source plant: bundle"].level is Level.WARNING


def test_the_service_tells_what_is_published_and_the_time(
    cloud: CloudDouble, enrol: Enrol, signing_key: Ed25519PrivateKey
) -> None:
    device = enrol(cloud.address)
    source_of(device).pop("bundle")
    source_of(device)["bundle_name"] = "plant"
    found = findings_of(device)
    assert found["service"].level is Level.OK
    assert "'plant' is not published: vedette cloud publish" in found["source plant: bundle"].text
    cloud.desired = [("plant", tabular_bundle(signing_key))]
    cloud.clock_ahead_s = DAY.total_seconds() * 3
    found = findings_of(device)
    assert "vedette edge run fetches it" in found["source plant: bundle"].text
    assert found["source plant: columns"].text == "all 3 channels of the bundle are there"
    assert not (device.state / "bundles").exists()
    assert "3 days behind the service" in found["clock"].text
    assert cloud.heartbeats == []
    assert cloud.queries == 2
    cloud.stop()
    found = findings_of(device)
    assert found["service"].level is Level.WARNING
    assert "nobody listens" in found["service"].text


def test_columns_are_compared_with_the_wanted_bundle_before_it_is_fetched(
    cloud: CloudDouble, enrol: Enrol, signing_key: Ed25519PrivateKey
) -> None:
    device = enrol(cloud.address)
    source_of(device).pop("bundle")
    source_of(device)["bundle_name"] = "plant"
    source_of(device)["path"] = write_csv(device.folder / "wrong.csv", normal_rows(5), ("heat", "load", "wrong"))
    cloud.desired = [("plant", tabular_bundle(signing_key))]
    found = findings_of(device)["source plant: columns"]
    assert found.problem is not None
    assert found.problem.exit_code == 4
    assert "flow" in found.text
    cloud.cut_fetch_after = 1000
    found_all = findings_of(device)
    assert "could not be fetched for this check (cut)" in found_all["source plant: bundle"].text
    assert found_all["source plant: columns"].text == "are compared once the bundle is fetched and verified"
    cloud.desired = [("plant", tabular_bundle(Ed25519PrivateKey.generate()))]
    found = findings_of(device)["source plant: bundle"]
    assert (found.level, "not signed by a trusted key" in found.text) == (Level.WARNING, True)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(group="edge").root, ["edge", *arguments])
    return result.exit_code, result.stdout


def test_the_command_gives_lines_json_and_an_exit_code(device: Device) -> None:
    device.write()
    code, text = run("check", "--config", str(device.config))
    assert code == 0, text
    assert all(line.startswith(("ok ", "All is well.")) for line in text.splitlines())
    source_of(device)["path"] = "/nowhere/rows.csv"
    device.write()
    code, text = run("check", "--config", str(device.config), "--json")
    found = json.loads(text)
    assert code == found["exit_code"] == 4
    assert found["ok"] is False
    assert {"name", "level", "text"} == found["checks"][0].keys()
    device.config.write_text("state_dir = 3")
    code, text = run("check", "--config", str(device.config))
    assert code == 3
    assert text.startswith("FAIL settings")


FAULTS: dict[str, dict[str, Any]] = {
    "key": {"bundle_key": "/nowhere/key.pem"},
    "state folder": {"state_dir": f"{__file__}/state"},
    "identity": {"router": {"mode": "cascade"}},
    "sources": {"sources": []},
    "secret": {
        "alarms": [{"id": "a", "kind": "webhook", "url": "http://127.0.0.1:1/", "secret_file": "/nowhere/secret"}]
    },
    "password": {
        "alarms": [
            {"id": "a", "kind": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "t", "password_file": "/nowhere/p"}
        ]
    },
}


@pytest.mark.parametrize("changes", FAULTS.values(), ids=FAULTS)
def test_run_ends_with_the_exit_code_of_check_before_anything_starts(device: Device, changes: dict[str, Any]) -> None:
    device.settings |= changes
    device.write()
    code, text = run("check", "--config", str(device.config), "--json")
    failed = next(one for one in json.loads(text)["checks"] if one["level"] == "error")
    assert device.run() == code > 0
    assert failed["text"] in device.text()
    assert not device.state.exists()


def test_run_ends_where_its_port_is_taken_and_goes_on_with_a_full_disk(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.disk.free_bytes", lambda path: 2**20)
    monkeypatch.setattr("edge.check.run.free_bytes", lambda path: 2**20)
    device.write()
    settings = AgentSettings.load(device.config)
    assert exit_code(check(settings)) == 10
    found = {finding.name: finding for finding in check_start(settings)}
    assert (found["disk"].level, "Free space" in found["disk"].text) == (Level.WARNING, True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        metrics = settings.metrics.model_copy(update={"address": f"127.0.0.1:{other.getsockname()[1]}"})
        assert exit_code(check_start(settings.model_copy(update={"metrics": metrics}))) == 11


@pytest.mark.system
def test_run_ends_at_once_where_a_source_can_never_work_and_waits_where_it_may(
    device: Device,
) -> None:
    path = write_csv(device.folder / "log.csv", normal_rows(5), ("heat", "load", "wrong"))
    good = dict(source_of(device), loop=True, rate_per_s=50)
    device.settings["sources"] = [good, {**source_of(device), "id": "log", "kind": "tail", "path": path}]
    assert device.run() == 4
    assert "flow" in device.text()
    assert device.counters() == {}  # no source has begun
    device.settings["sources"][1]["path"] = device.folder / "later.csv"
    device.start()
    device.until(lambda: device.status().get("sources", {}).get("log", {}).get("health") == "waiting")
    assert "event=not_ready" in device.text()
    assert device.terminate() == 0
