"""The whole agent as a process, against a real service over real TLS."""

import csv
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.operation.inspection import read_status, spool_lines, status_lines
from shared.bundle import Bundle
from tests.edge.bundles import SIDE, normal_images, normal_rows, tabular_bundle
from tests.edge.certificates import Authority
from tests.edge.cloud_double import CloudDouble, running_cloud
from tests.edge.conftest import Enrol
from tests.edge.device import Device, get, write_csv
from tests.edge.proxy import Proxy

pytestmark = pytest.mark.system


def logged(device: Device) -> list[dict[str, str]]:
    with Path(device.settings["screening_log"]["path"]).open() as file:
        return list(csv.DictReader(file))


def routed_ids(device: Device) -> set[str]:
    return {row["sample_id"] for row in logged(device) if row["sample_id"]}


def test_a_run_forwards_the_suspicious_and_brings_verdicts_back(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address)
    del device.settings["sources"][0]["artefact"]  # it is measured which
    assert device.start_afresh("--until-done").wait(60) == 0, device.text()
    rows, counts = logged(device), device.counters()
    assert counts["samples_screened"] == len(rows) == 600
    assert {row["origin"] for row in rows} == {f"readings.csv:{number}" for number in range(1, 601)}
    odd = {f"readings.csv:{number}" for number in range(571, 601)}
    assert odd <= {row["origin"] for row in rows if row["route"] in ("forward", "alarm")}
    assert routed_ids(device) == cloud.sample_ids()
    assert counts["samples_forwarded"] + counts["samples_audited"] == len(cloud.samples)
    assert counts["verdicts"] == counts["samples_acknowledged"] == len(cloud.samples) < 120
    status = device.status()
    assert status["device_id"] == "device-1"
    assert status["spool"]["samples"] == 0
    assert status["latency_ms"]["sample_to_verdict"]["p50"] > 0
    assert cloud.heartbeats[-1].running[0].bundle_name == "plant"


def test_the_cloud_absent_at_start_and_a_restart_lose_nothing(
    authority: Authority, signing_key: Ed25519PrivateKey, enrol: Enrol
) -> None:
    with running_cloud(authority) as gone:
        port = gone.port
    device = enrol(f"127.0.0.1:{port}")
    device.settings["drain_timeout_s"] = 1
    assert device.run("--until-done") == 9, device.text()
    assert "nobody listens at" in device.text()
    assert "are kept" in device.text()
    first = routed_ids(device)
    assert first
    Path(device.settings["sources"][0]["path"]).unlink()
    write_csv(Path(device.settings["sources"][0]["path"]), normal_rows(64, seed=9))
    device.settings["drain_timeout_s"] = 15
    unfinished = [device.state / folder / ".plant.npz.0a1b2c3d.new" for folder in ("calibrations", "drift", "promises")]
    for path in unfinished:  # as a power cut leaves them
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with running_cloud(authority, port=port) as cloud:
        assert device.run("--until-done") == 0, device.text()
        assert not any(path.exists() for path in unfinished)
        assert first <= cloud.sample_ids() == routed_ids(device)
    assert device.counters()["samples_screened"] == 664


def test_kill_9_of_the_command_as_users_start_it_loses_nothing(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"rate_per_s": 2000, "loop": True, "batch_size": 32}
    for _ in range(2):  # two hundred kills of its process are in test_kills.py
        device.start_afresh()
        device.until(
            lambda: device.status().get("process_id") == device.process.pid and device.counters()["samples_screened"]
        )
        before = device.counters()
        device.kill()
    device.settings["sources"][0] |= {"loop": False}
    assert device.run("--until-done") == 0, device.text()
    after = device.counters()
    assert routed_ids(device) <= cloud.sample_ids()
    assert after["samples_acknowledged"] == after["samples_spooled"] == len(cloud.samples) == after["verdicts"]
    assert all(after[name] >= value for name, value in before.items())


def test_a_link_cut_under_load_loses_nothing(cloud: CloudDouble, enrol: Enrol) -> None:
    proxy = Proxy(cloud.port)
    device = enrol(proxy.address)
    device.settings["sources"][0] |= {"rate_per_s": 800, "loop": True, "batch_size": 32, "stop_after_s": 4}
    device.settings["drain_timeout_s"] = 20
    device.start("--until-done")
    device.until(lambda: device.counters().get("samples_acknowledged", 0) > 5)
    proxy.cut()
    device.until(lambda: device.status()["spool"]["samples"] > 40 and not device.status()["link"]["connected"])
    assert "nobody listens" in device.text()
    proxy.mend()
    assert device.wait() == 0, device.text()
    assert routed_ids(device) == cloud.sample_ids()
    assert device.counters()["samples_dropped"] == 0
    proxy.close()


def test_a_link_far_too_slow_for_the_usual_requests_carries_smaller_ones(cloud: CloudDouble, enrol: Enrol) -> None:
    """At 20 kB a second, a request of 256 rows takes three times its deadline, and four of them go out at once."""
    proxy = Proxy(cloud.port)
    proxy.slow_down(20_000)
    device = enrol(proxy.address)
    device.settings["uplink"]["deadline_s"] = 1.0
    device.settings["router"] = {"mode": "cloud_only"}
    device.settings["drain_timeout_s"] = 40
    assert device.run("--until-done", timeout_s=60) == 0, device.text()
    assert len(cloud.samples) == device.counters()["samples_acknowledged"] == 600
    assert device.counters()["verdicts"] == 600
    proxy.close()


def test_a_silent_link_is_given_up_and_made_anew(cloud: CloudDouble, enrol: Enrol) -> None:
    proxy = Proxy(cloud.port)
    device = enrol(proxy.address)
    device.settings["uplink"]["deadline_s"] = 0.4
    device.settings["sources"][0] |= {"rate_per_s": 400, "loop": True, "batch_size": 32}
    device.start()
    device.until(lambda: device.counters().get("samples_acknowledged", 0) > 5)
    proxy.hold()
    device.until(lambda: "reconnecting" in device.text())
    proxy.release()
    device.until(lambda: device.status()["link"]["connected"])
    assert device.terminate() == 0, device.text()
    proxy.close()


def test_answers_that_fail_or_cover_half_a_batch_lose_nothing(cloud: CloudDouble, enrol: Enrol) -> None:
    import grpc

    faults = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, "half", grpc.StatusCode.RESOURCE_EXHAUSTED, "half"]

    async def half(samples: list) -> list:
        return [await cloud.accept(sample) for sample in samples[::2]]

    def fault(samples: list) -> object:
        if not faults:
            return None
        what = faults.pop(0)
        return half(samples) if what == "half" else what

    cloud.submit_fault = fault
    device = enrol(cloud.address)
    device.settings["uplink"]["batch_samples"] = 16
    assert device.run("--until-done") == 0, device.text()
    assert not faults
    assert routed_ids(device) == cloud.sample_ids()
    assert device.counters()["verdicts"] == len(cloud.samples)


def test_refused_samples_are_counted_and_set_aside(cloud: CloudDouble, enrol: Enrol) -> None:
    from vedette.v1 import detection_pb2

    refused: list[bytes] = []

    async def refuse_half(samples: list) -> list:
        answers = []
        for position, sample in enumerate(samples):
            if position % 2:
                answers.append(await cloud.accept(sample))
                continue
            refused.append(sample.sample_id)
            status = detection_pb2.SUBMIT_STATUS_REJECTED
            answers.append(
                detection_pb2.SampleResult(sample_id=sample.sample_id, status=status, reason="no such bundle")
            )
        return answers

    cloud.submit_fault = refuse_half
    device = enrol(cloud.address)
    assert device.run("--until-done") == 0, device.text()
    counts = device.counters()
    assert counts["samples_refused"] == len(refused) > 0
    assert counts["samples_acknowledged"] == len(cloud.samples) > 0
    assert "no such bundle" in device.text()
    assert any("refused" in problem for problem in device.status()["problems"])
    assert sum("no such bundle" in line for line in spool_lines(device.state, 1000)) == len(refused)


def test_a_request_nobody_takes_is_halved_until_the_culprit_is_found(cloud: CloudDouble, enrol: Enrol) -> None:
    import grpc

    culprit: list[bytes] = []

    def fault(samples: list) -> object:
        culprit[:] = culprit or [samples[0].sample_id]
        return grpc.StatusCode.INVALID_ARGUMENT if any(s.sample_id == culprit[0] for s in samples) else None

    cloud.submit_fault = fault
    device = enrol(cloud.address)
    assert device.run("--until-done") == 0, device.text()
    assert device.counters()["samples_refused"] == 1
    assert len(cloud.samples) == len(routed_ids(device)) - 1


def test_sigterm_ends_it_within_five_seconds_and_keeps_routed_samples(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"loop": True}
    device.start()
    device.until(lambda: device.counters().get("samples_acknowledged", 0) > 0)
    assert device.terminate(5) == 0, device.text()
    spooled = device.status()["spool"]["samples"] + device.status()["counters"]["samples_acknowledged"]
    counts = device.counters()
    assert counts["samples_forwarded"] + counts["samples_audited"] == counts["samples_spooled"] == spooled
    assert "event=stopped" in device.text()


def test_a_new_bundle_is_fetched_swapped_and_kept(
    cloud: CloudDouble, enrol: Enrol, signing_key: Ed25519PrivateKey
) -> None:
    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"rate_per_s": 400, "loop": True, "batch_size": 16, "bundle_name": "plant"}
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) > 0)
    first = device.status()["sources"]["plant"]["bundle_id"]
    second = tabular_bundle(signing_key, version=2)
    cloud.cut_fetch_after = 2500
    cloud.publish(second)
    device.until(lambda: device.status()["sources"]["plant"]["bundle_id"] == second.manifest.bundle_id)
    device.until(lambda: device.counters()["bundle_swaps"] == 1)
    assert first != second.manifest.bundle_id
    assert cloud.fetch_offsets == [0, 3000] or (len(cloud.fetch_offsets) == 2 and cloud.fetch_offsets[1] > 0)
    device.until(lambda: cloud.heartbeats[-1].running[0].bundle_id == second.manifest.bundle_id)
    assert device.terminate() == 0, device.text()
    # It starts with the fetched one, even without the cloud.
    cloud.stop()
    device.start()
    device.until(lambda: device.status()["sources"]["plant"]["bundle_id"] == second.manifest.bundle_id)


def test_a_bundle_that_scores_nothing_is_rolled_back(
    cloud: CloudDouble, enrol: Enrol, signing_key: Ed25519PrivateKey
) -> None:
    from tests.edge.bundles import distance_graph

    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"rate_per_s": 400, "loop": True, "batch_size": 16, "bundle_name": "plant"}
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) > 0)
    first = device.status()["sources"]["plant"]["bundle_id"]
    broken = tabular_bundle(signing_key, version=2, graph=distance_graph(3, gain=float("nan")))
    cloud.publish(broken)
    device.until(lambda: device.counters()["bundle_rollbacks"] == 1)
    screened = device.counters()["samples_screened"]
    device.until(lambda: device.counters()["samples_screened"] > screened + 200)
    assert device.status()["sources"]["plant"]["bundle_id"] == first
    assert device.counters()["samples_unscored"] == 0
    assert len(cloud.fetch_offsets) == 1  # it is not tried again
    assert device.terminate() == 0, device.text()


def test_an_altered_bundle_from_the_cloud_is_refused(
    cloud: CloudDouble, enrol: Enrol, signing_key: Ed25519PrivateKey
) -> None:
    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"rate_per_s": 400, "loop": True, "bundle_name": "plant"}

    def altered(bundle: Bundle) -> bytes:
        data = bytearray(bundle.archive(edge_only=True))
        data[len(data) // 2] ^= 1
        return bytes(data)

    cloud.archive_of = altered
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) > 0)
    cloud.publish(tabular_bundle(signing_key, version=2))
    device.until(lambda: device.counters()["bundles_refused"] == 1)
    assert "bundle_refused" in device.text()
    assert device.terminate() == 0, device.text()


def test_a_device_without_a_bundle_waits_for_the_cloud_s(cloud: CloudDouble, enrol: Enrol, tabular: Bundle) -> None:
    device = enrol(cloud.address)
    del device.settings["sources"][0]["bundle"]
    device.settings["sources"][0]["bundle_name"] = "plant"
    cloud.publish(tabular)
    assert device.run("--until-done") == 0, device.text()
    assert device.counters()["samples_screened"] == 600
    assert routed_ids(device) == cloud.sample_ids()


def test_bad_rows_are_counted_and_the_rest_is_screened(device: Device) -> None:
    rows = normal_rows(100).astype(object)
    rows[3, 1], rows[50, 2], rows[70, 0], rows[71, 0] = "n/a", float("nan"), float("inf"), ""
    write_csv(Path(device.settings["sources"][0]["path"]), rows)
    assert device.run("--until-done") == 0, device.text()
    counts = device.counters()
    assert (counts["samples_screened"], counts["samples_rejected"]) == (96, 4)
    assert not {"readings.csv:4", "readings.csv:51", "readings.csv:71"} & {row["origin"] for row in logged(device)}


def test_unreadable_images_are_counted_and_the_rest_is_screened(
    cloud: CloudDouble, enrol: Enrol, images: Bundle, tmp_path: Path
) -> None:
    from shared.images import encode_png

    device = enrol(cloud.address)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    pictures = normal_images(20, seed=3)
    pictures[7, 8:24, 8:24] = 250
    for number, picture in enumerate(pictures):
        (folder / f"{number:02}.png").write_bytes(encode_png(np.repeat(np.repeat(picture, 2, 0), 2, 1)))
    (folder / "deep" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "deep" / "empty.jpg").write_bytes(b"")
    images.save(tmp_path / "photos.bundle")
    source = {"id": "camera", "kind": "images", "path": folder, "bundle": tmp_path / "photos.bundle"}
    device.settings["sources"] = [source | {"artefact": "int8_onnxruntime"}]
    assert device.run("--until-done") == 0, device.text()
    counts = device.counters()
    assert (counts["samples_screened"], counts["samples_rejected"]) == (20, 2)
    odd = next(sample for sample in cloud.samples.values() if sample.origin == "07.png")
    assert odd.payload.data == (folder / "07.png").read_bytes()
    grid = np.frombuffer(odd.screening.anomaly_map.values, np.uint8).reshape(SIDE // 8, SIDE // 8)
    assert grid.max() == 255
    assert np.median(grid) < 130


def test_the_endpoint_shows_metrics_health_and_status(device: Device) -> None:
    device.settings["sources"][0] |= {"rate_per_s": 100, "loop": True}
    device.settings["router"]["false_alarms_per_day"] = 20_000  # which 500 held-out rows resolve
    device.start_afresh()
    device.until(lambda: device.counters().get("samples_screened", 0) > 0)
    address = device.status()["metrics_address"]
    code, text = get(address, "/metrics")
    assert code == 200
    assert "vedette_edge_samples_screened_total" in text
    assert get(address, "/health")[0] == 200
    assert json.loads(get(address, "/status")[1])["sources"]["plant"]["state"] == "running"
    assert get(address, "/nothing")[0] == 404
    assert device.process is not None
    process = Path(f"/proc/{device.process.pid}")
    assert "libtorch" not in (process / "maps").read_text()
    resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(resident.split()[1]) < 250 * 1024
    live = read_status(device.state)
    assert live.live
    assert any("plant: running" in line for line in status_lines(live))
    assert device.terminate() == 0, device.text()
    last = read_status(device.state)
    assert not last.live
    assert any("ago" in line for line in status_lines(last))


def test_a_full_disk_is_said_counted_and_survived(cloud: CloudDouble, enrol: Enrol) -> None:
    cloud.stop()
    device = enrol(cloud.address)
    device.settings["router"] = {"mode": "cloud_only"}
    device.settings["spool"] = {"max_pending_bytes": 1 << 16}
    device.settings["sources"][0] |= {"rate_per_s": 3000, "loop": True}
    del device.settings["screening_log"]
    # No file may grow beyond 400 kB, which simulates a full disk.
    device.start(most_file_bytes=400_000)
    device.until(lambda: device.status().get("spool", {}).get("error") and device.counters()["samples_dropped"] > 0)
    address = device.status()["metrics_address"]
    code, text = get(address, "/health")
    assert code == 503
    assert "spool" in text
    assert "event=spool_failed" in device.text()
    pid = device.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    device.until(lambda: not device.status()["spool"]["error"])
    assert "event=spool_recovered" in device.text()
    assert device.terminate() == 0, device.text()
    counts, status = device.counters(), device.status()
    assert counts["samples_forwarded"] + counts["samples_audited"] == counts["samples_screened"]
    assert counts["samples_forwarded"] + counts["samples_audited"] == (
        counts["samples_dropped"] + status["spool"]["samples"]
    )


def test_a_damaged_spool_is_set_aside_and_the_agent_goes_on(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address)
    device.state.mkdir(exist_ok=True)
    (device.state / "spool.db").write_bytes(b"SQLite format 3\x00" + os.urandom(20_000))
    assert device.run("--until-done") == 0, device.text()
    assert list(device.state.glob("spool.db.damaged-*"))
    assert device.counters()["spools_set_aside"] == 1
    assert "database_damaged" in device.text()
    assert routed_ids(device) == cloud.sample_ids()
    assert any("damaged" in warning for warning in cloud.heartbeats[-1].warnings)
    assert device.run("--until-done") == 0, device.text()
    assert device.counters()["spools_set_aside"] == 1
    assert device.status()["problems"] == []  # problems of an earlier run do not keep this one unhealthy
