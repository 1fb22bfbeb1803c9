"""Bundles and rollouts through the API: report, download, release, withdrawal, trial of a group."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.datastructures import Headers
from starlette.responses import FileResponse

from cloud.bundle_report import reading
from cloud.bundle_report.reading import BundleReports
from cloud.console.models.bundle_words import trained_words
from cloud.rest import archive_download
from cloud.rest.archive_download import RETRY_S, ArchiveDownload, DownloadSlots
from cloud.rest.front import TaggedAnswer
from cloud.store.fleet import Place, set_place
from shared.bundle import Bundle, ParityFigures, npz_bytes, sign
from tests.cloud.console.filled_store import CAMERA, KEY, SHUTTLE, Fleet, manifest

RESOLUTION = {
    "held_out": 412,
    "separate": 206,
    "held_out_share": 0.1,
    "false_alarms_per_day": 1.0,
    "samples_per_day": 1440.0,
    "rate_origin": "",
}
TRAINING = {
    "data": "shuttle.csv",
    "train_samples": 4120,
    "held_out_samples": 412,
    "labelled_samples": 900,
    "seconds": 143.2,
    "auroc": {"fused": 0.91, "score_norm": 0.87, "knn": 0.93, "int8_openvino": 0.9},
    "judgement": {
        "figures": {
            "resolution": RESOLUTION,
            "corruptions": {"swap": {"copies": 40, "screener": 31, "fused": 36}, "odd": "not a mapping"},
        }
    },
}


async def publish_rich(fleet: Fleet, version: int = 2, **updates: Any) -> str:
    """A bundle with a fusion, a calibration and the figures of a training run, beside the current one."""
    scores = {"scores": np.arange(412.0), "tail": np.array([400.0, 1.0, 0.1])}
    fusion = {f"own/{name}/{key}": array for name in ("score_norm", "knn") for key, array in scores.items()}
    fusion |= {f"hand/score_norm/{key}": array for key, array in scores.items()}
    fusion["weight/score_norm/value"] = np.array(1.0)
    files = {
        "edge/screener_int8_openvino.xml": b"x" * 400,
        "edge/screener_int8_openvino.bin": b"y" * 600,
        "edge/calibration_int8_openvino.npz": npz_bytes(scores),
        "cloud/fusion.npz": npz_bytes(fusion),
    }
    figures = ParityFigures(rank_correlation=0.998, label_agreement=0.99, max_score_difference=0.1)
    updates = {"training": TRAINING, "parity": {"int8_openvino": figures}} | updates
    facts = manifest(SHUTTLE, version).model_copy(update=updates)
    return (await fleet.registry.publish(sign(facts, files, KEY), make_current=False)).bundle_id


async def test_a_report_holds_what_manifest_and_archive_say(fleet: Fleet, client: httpx.AsyncClient) -> None:
    bundle_id = await publish_rich(fleet)
    report = (await client.get(f"/bundles/{bundle_id}/report")).json()
    opinions = {item["name"]: item for item in report["opinions"]}
    assert {name: item["kind"] for name, item in opinions.items()} == {
        "knn": "baseline",
        "fused": "fused",
        "int8_openvino": "screener",
        "score_norm": "member",
    }
    assert report["opinions"][0]["name"] == "knn", "the highest AUROC first"
    assert (opinions["score_norm"]["weight"], opinions["score_norm"]["below"]) == (1.0, "knn")
    (artefact,) = report["artefacts"]
    assert (artefact["graph_bytes"], artefact["held_out"], artefact["is_preferred"]) == (1000, 412, True)
    assert artefact["rarest_p_value"] == 1 / 413
    assert report["resolution"]["alarms_per_day"] == 1440 / 207
    assert report["synthetic"] == [{"kind": "swap", "copies": 40, "screener": 31, "fused": 36}]
    assert report["signer"]
    assert report["published_by"].startswith("user:")
    said = " ".join(report["problems"])
    for words in ("fused verdict is below its baseline knn", "member score_norm is below", "Too few normals: 206"):
        assert words in said
    current = (await client.get(f"/bundles/{fleet.bundle_ids['shuttle']}/report")).json()
    assert current["runs"] == [{"group": "default", "artefact": "int8_openvino", "devices": 1, "reporting": 1}]
    assert (await client.get("/bundles/none/report")).status_code == 404


async def test_a_report_says_what_was_made_again_from_the_parent(fleet: Fleet) -> None:
    counts = {"false_alarms": 12, "stream_normals": 4000, "added_scores": 3}
    parent = "shuttle-2-0badcafe"
    training = {name: value for name, value in TRAINING.items() if name != "seconds"}
    training["recalibration"] = counts | {"parent_bundle_id": parent}
    for version, made_from, facts, words in (
        (3, parent, counts, f"Its calibration was made again from {parent}, with 12 labelled false alarms; "),
        (4, "shuttle-3-0badcafe", None, "A federated round made it from shuttle-3-0badcafe."),
    ):
        bundle_id = await publish_rich(fleet, version, training=training, parent_bundle_id=made_from)
        report = await BundleReports(fleet.store, fleet.registry, 60.0).report(bundle_id, 0.0)
        assert report is not None
        assert report.model_dump()["recalibration"] == facts
        assert trained_words(report).startswith(words)


async def test_a_bundle_whose_archive_is_gone_still_has_a_report(fleet: Fleet, client: httpx.AsyncClient) -> None:
    bundle_id = await publish_rich(fleet)
    (await fleet.registry.archive(bundle_id)).unlink()
    report = (await client.get(f"/bundles/{bundle_id}/report")).json()
    assert report["signer"] == ""
    assert "The archive cannot be read" in report["problems"][0]
    assert report["held_out_samples"] == 412
    assert (await client.get(f"/bundles/{bundle_id}/archive")).status_code == 404
    refused = await client.post(f"/bundles/{bundle_id}/release", json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:vedette:problem:release-refused")
    assert (await fleet.registry.current("shuttle")).bundle_id != bundle_id
    report = await BundleReports(fleet.store, None, 60.0).report(bundle_id, 0.0)
    assert report is not None
    assert report.problems[0] == "This process has no registry."


async def test_an_archive_is_downloaded_whole_or_as_devices_get_it(fleet: Fleet, client: httpx.AsyncClient) -> None:
    bundle_id = await publish_rich(fleet)
    whole = await client.get(f"/bundles/{bundle_id}/archive")
    assert whole.content == (await fleet.registry.archive(bundle_id)).read_bytes()
    assert whole.headers["content-disposition"] == f'attachment; filename="{bundle_id}.vedette"'
    part = await client.get(f"/bundles/{bundle_id}/archive", params={"for_devices": "true"})
    assert len(part.content) < len(whole.content)
    for tag in (whole.headers["etag"], f"W/{whole.headers['etag']}", "*"):
        known = await client.get(f"/bundles/{bundle_id}/archive", headers={"If-None-Match": tag})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", whole.headers["etag"])
    rest = await client.get(f"/bundles/{bundle_id}/archive", headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert (await client.get("/bundles/..%2F..%2Fetc/archive")).status_code == 404


async def test_downloads_are_bounded_in_number_and_time_and_pass_in_pieces(tmp_path: Path) -> None:
    file, slots, sent = tmp_path / "archive", DownloadSlots(), list[dict[str, Any]]()
    file.write_bytes(bytes(3 * FileResponse.chunk_size))
    going, more = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ArchiveDownload(file, "archive", scope["caller"], slots)(scope, receive, send)

    async def get(caller: str, send: Any, **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        answer = TaggedAnswer(Headers(raw=raw), send, is_get=True)
        await app({"type": "http", "method": "GET", "headers": raw, "caller": caller}, None, answer.send)

    async def slow(message: Any) -> None:
        sent.append(message)
        going.set()
        await more.wait()

    async def take(message: Any) -> None:
        sent.append(message)

    waiting = [asyncio.create_task(get(caller, slow)) for caller in ("ada", "ada", "bob")]
    await going.wait()
    while len(sent) < 3:
        await asyncio.sleep(0)
    assert [message["type"] for message in sent] == ["http.response.start"] * 3, "before the file was read"
    tag = Headers(raw=sent[0]["headers"])["etag"]
    for caller, status in (("ada", 503), ("carl", 200)):
        sent.clear()
        await get(caller, take)
        assert sent[0]["status"] == status, caller
    assert [len(message["body"]) for message in sent[1:]] == [FileResponse.chunk_size] * 3 + [0]
    full = [asyncio.create_task(get("carl", slow))]
    await asyncio.sleep(0)
    sent.clear()
    await get("dora", take)
    assert (sent[0]["status"], Headers(raw=sent[0]["headers"])["retry-after"]) == (503, str(RETRY_S))
    sent.clear()
    await get("dora", take, if_none_match=tag)
    assert [message.get("status") for message in sent] == [304, None], "needs no place"
    more.set()
    await asyncio.gather(*waiting, *full)
    sent.clear()
    await get("ada", take)
    assert sent[0]["status"] == 200, "all places are free again"


async def test_a_client_that_takes_nothing_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, slots = tmp_path / "archive", DownloadSlots()
    file.write_bytes(b"x")
    monkeypatch.setattr(archive_download, "GRACE_S", 0.02)

    async def stuck(_: Any) -> None:
        await asyncio.Event().wait()

    for _ in range(archive_download.MAX_OF_CALLER + 1):
        await ArchiveDownload(file, "archive", "ada", slots)(
            {"type": "http", "method": "GET", "headers": []}, None, stuck
        )  # type: ignore[arg-type]
    with slots.place("ada"):
        pass


async def test_a_damaged_archive_is_read_once_while_it_stays_as_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_id = await publish_rich(fleet)
    path, reads, read = await fleet.registry.archive(bundle_id), list[str](), fleet.registry.bundle
    good, reports = path.read_bytes(), BundleReports(fleet.store, fleet.registry, 60.0)

    async def counted(wanted: str) -> Bundle:
        reads.append(wanted)
        return await read(wanted)

    async def problems() -> str:
        report = await reports.report(bundle_id, 0.0)
        assert report is not None
        return " ".join(report.problems)

    monkeypatch.setattr(fleet.registry, "bundle", counted)
    path.write_bytes(good[:-100])
    for _ in range(3):
        assert "The archive cannot be read" in await problems()
    assert len(reads) == 1
    monkeypatch.setattr(reading, "FAILURE_TTL_S", 0.0)
    path.write_bytes(good[:-101])
    await problems()
    await problems()
    assert len(reads) == 3, "a failure is valid for a time"
    path.write_bytes(good)
    for _ in range(3):
        assert "cannot be read" not in await problems()
    assert len(reads) == 4


async def test_a_bundle_is_released_for_groups_and_withdrawn(fleet: Fleet, client: httpx.AsyncClient) -> None:
    first, second = fleet.bundle_ids["shuttle"], await publish_rich(fleet)
    released = (await client.post(f"/bundles/{second}/release", json={"groups": ["presses", "presses"]})).json()
    assert (released["current"], released["groups"]) == (True, ["presses"])
    kept = (await client.post(f"/bundles/{second}/release", json={})).json()
    assert kept["groups"] == ["presses"], "null leaves the groups as they are"
    assert (await client.post(f"/bundles/{first}/withdrawal")).status_code == 409, "it is not the current one"
    assert (await client.post(f"/bundles/{second}/withdrawal")).json()["bundle_id"] == first
    assert (await client.post(f"/bundles/{first}/withdrawal")).status_code == 409, "none was before it"
    everywhere = (await client.post(f"/bundles/{first}/release", json={"groups": []})).json()
    assert everywhere["groups"] is None
    actions = (await client.get("/audit", params={"size": 20})).json()["items"]
    done = [item["action"] for item in actions if item["actor"].startswith("api:CI")]
    assert {"bundle.released", "bundle.current", "bundle.rolled_back"} <= set(done)
    for wrong in ({"groups": ["a b"]}, {"groups": ["x"] * 201}, {"odd": 1}):
        assert (await client.post(f"/bundles/{first}/release", json=wrong)).status_code == 422


async def test_a_release_waits_for_the_end_of_a_rollout(fleet: Fleet, client: httpx.AsyncClient) -> None:
    bundle_id = await publish_rich(fleet)
    body = {"name": "shuttle", "bundle_id": bundle_id, "waves": "50,100"}
    number = (await client.post("/rollouts", json=body)).json()["number"]
    refused = await client.post(f"/bundles/{bundle_id}/release", json={"groups": ["presses"]})
    assert refused.status_code == 409
    assert (await client.get(f"/bundles/{bundle_id}")).json()["groups"] is None, "nothing was changed"
    assert (await client.get(f"/rollouts/{number}")).json()["bundle_id"] == bundle_id
    other = await client.post("/rollouts/shuttle/actions", json={"action": "back", "number": number + 1})
    assert other.status_code == 409
    assert (await client.post("/rollouts/shuttle/actions", json={"action": "back", "number": number})).is_success
    assert (await client.get("/rollouts/99")).status_code == 404


async def test_a_trial_of_a_group_names_its_devices(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await set_place(fleet.store, [SHUTTLE.device_id, CAMERA.device_id], Place(group="presses"))
    body = {"name": "shuttle", "bundle_id": await publish_rich(fleet), "waves": "100"}
    assert (await client.post("/rollouts", json=body | {"trial_group": "nobody"})).status_code == 422
    started = (await client.post("/rollouts", json=body | {"trial_group": "presses"})).json()
    assert started["stages"][0]["devices"] == sorted([SHUTTLE.device_id, CAMERA.device_id])
