"""Starts of the agent that are refused or that name what is missing, as a process against a real service."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.check import check, exit_code
from edge.operation.inspection import read_status, status_lines
from edge.settings import AgentSettings
from shared.bundle import Bundle
from tests.edge.bundles import normal_rows
from tests.edge.certificates import DAY, Authority
from tests.edge.cloud_double import CloudDouble, running_cloud
from tests.edge.conftest import Enrol
from tests.edge.device import Device, get, write_csv
from tests.edge.video_files import UNREADABLE

pytestmark = pytest.mark.system


def test_an_expired_certificate_ends_the_start(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address, start=-2 * DAY, end=-DAY)
    assert device.run() == 7
    assert "device.crt: expired on" in device.text()
    assert "Traceback" not in device.text()


def test_a_foreign_certificate_ends_the_start(cloud: CloudDouble, authority: Authority, enrol: Enrol) -> None:
    device = enrol(cloud.address, issuer=Authority("Elsewhere"), pinned=authority)
    assert device.run() == 7
    assert "foreign" in device.text()


def test_a_device_of_another_authority_says_that_the_service_is_not_its_own(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address, issuer=Authority("Elsewhere"))
    device.start()
    device.until(lambda: "is not trusted" in device.text())
    assert device.status()["link"]["connected"] is False
    assert device.terminate() == 0, device.text()


def test_a_service_that_refuses_the_device_s_certificate_is_named(signing_key: Ed25519PrivateKey, enrol: Enrol) -> None:
    own, other = Authority(), Authority("Elsewhere")
    with running_cloud(own, clients=other) as cloud:
        device = enrol(cloud.address, issuer=own)
        device.start()
        device.until(lambda: "refuses this device's certificate" in device.text())
        assert device.terminate() == 0, device.text()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"router": {"mode": "edge_only", "forward_pvalue": 0.1}}, 3, "did you mean 'forward_p_value'"),
        ({"sources": []}, 3, "names no source"),
        ({"metrics": {"address": "127.0.0.1:{port}"}}, 11, "cannot listen there"),
        ({"bundle_key": "nowhere.pem"}, 7, "nowhere.pem: no such file"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    device: Device, cloud: CloudDouble, change: dict, code: int, words: str
) -> None:
    device.settings |= json.loads(json.dumps(change).replace("{port}", str(cloud.port)))
    assert device.run("--until-done") == code
    lines = [line for line in device.text().splitlines() if line.startswith("vedette:")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in device.text()


def test_a_missing_column_is_one_clear_line(device: Device) -> None:
    write_csv(Path(device.settings["sources"][0]["path"]), normal_rows(20), ("heat", "load", "stream"))
    assert device.run("--until-done") == 4
    assert "lacks column 'flow'" in device.text()
    assert "Traceback" not in device.text()


def test_one_flipped_byte_in_a_bundle_is_one_clear_line(device: Device) -> None:
    path = Path(device.settings["sources"][0]["bundle"])
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    assert device.run("--until-done") == 5
    assert "plant.bundle" in device.text()
    assert "Traceback" not in device.text()


def test_without_an_enrolment_the_cascade_does_not_start(device: Device) -> None:
    device.settings["router"] = {"mode": "cascade"}
    assert device.run() == 7
    assert "vedette edge enroll" in device.text()


def test_a_video_that_cannot_be_opened_fails_its_source_only(device: Device, images: Bundle) -> None:
    images.save(device.folder / "images.bundle")
    plant = device.settings["sources"][0]
    plant |= {"rate_per_s": 100, "loop": True}
    door = {"id": "door", "kind": "camera", "url": UNREADABLE, "bundle": device.folder / "images.bundle"}
    device.settings["sources"].insert(0, door)
    device.start()
    device.until(lambda: device.status().get("counters", {}).get("samples_screened"))
    status = device.status()
    assert status["sources"]["plant"]["state"] == "running"
    assert status["sources"]["door"]["state"] == "failed"
    assert f"{UNREADABLE}: cannot be opened (Input/output error)" in status["sources"]["door"]["error"]
    assert any(problem.startswith(f"source door: {UNREADABLE}") for problem in status["problems"])
    assert device.terminate() == 0, device.text()


@pytest.mark.parametrize(("url", "code"), [(UNREADABLE, 0), (__file__, 4), ("/nowhere/a.mp4", 4)])
def test_check_and_run_agree_on_a_video_file(device: Device, images: Bundle, url: str, code: int) -> None:
    images.save(device.folder / "images.bundle")
    device.settings["sources"] = [
        {"id": "door", "kind": "camera", "url": url, "bundle": device.folder / "images.bundle"}
    ]
    device.write()
    assert exit_code(check(AgentSettings.load(device.config))) == code
    device.start()
    if code:
        assert device.wait() == code
        return
    device.until(lambda: device.status().get("sources", {}).get("door", {}).get("state") == "failed")
    assert device.terminate() == 0, device.text()


def test_a_second_agent_on_the_same_state_is_refused(device: Device) -> None:
    device.settings["sources"][0] |= {"rate_per_s": 100, "loop": True}
    device.start()
    device.until(device.status)
    second = Device(device.folder, {**device.settings})
    assert second.run() == 3
    assert "in use by another agent" in second.text()
    assert device.terminate() == 0, device.text()


def test_a_source_without_its_bundle_and_a_wrong_clock_are_named(cloud: CloudDouble, enrol: Enrol) -> None:
    cloud.clock_ahead_s = -2 * DAY.total_seconds()
    device = enrol(cloud.address)
    source = device.settings["sources"][0]
    source |= {"rate_per_s": 100, "loop": True}
    device.settings["sources"].append({**source, "id": "late", "bundle_name": "unpublished"})
    del device.settings["sources"][1]["bundle"]
    device.start()
    device.until(lambda: any("not published" in problem for problem in device.status().get("problems", [])))
    problems = device.status()["problems"]
    assert problems[0].startswith("clock: the device is 2 days ahead of the service")
    assert "source late: waiting for bundle 'unpublished', which is not published" in problems[1]
    code, text = get(device.status()["metrics_address"], "/health")
    assert code == 503
    assert json.loads(text)["sources"] == {"plant": "running", "late": "waiting for a bundle"}
    device.until(lambda: cloud.heartbeats[-1].warnings)
    assert {item.source_id: item.state for item in cloud.heartbeats[-1].running} == {
        "plant": "running",
        "late": "waiting for a bundle",
    }
    assert any("clock: the device is 2 days ahead" in line for line in status_lines(read_status(device.state)))
