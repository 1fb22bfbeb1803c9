"""Uploads and training jobs through the HTTP API: streamed, bounded, private, scoped and restricted to sites."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from cloud.jobs.desk import TrainingDesk
from cloud.rest.app import create_api
from cloud.settings import CloudSettings
from cloud.store.api_tokens import Scope, add_api_token, token_text
from cloud.store.training_jobs import NewJob, add_job
from tests.cloud.console.filled_store import SHUTTLE, Fleet
from tests.cloud.rest.conftest import MakeClient

LARGE = 3 * 64 * 1024  # far above the body of any other route


async def test_files_are_streamed_beyond_the_bound_of_other_bodies_and_belong_to_their_maker(
    clients: MakeClient,
) -> None:
    client, other = await clients(), await clients()
    upload = (await client.post("/training/uploads")).json()
    path = f"/training/uploads/{upload['upload_id']}"

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (LARGE // 3)

    answer = await client.put(f"{path}/files/line/train/press.csv", content=body())
    assert (answer.status_code, answer.json()["bytes"], answer.json()["files"]) == (200, LARGE, 1)
    assert (await client.put("/training/uploads/" + "0" * 16 + "/files/x.csv", content=b"1")).status_code == 404
    for name in ("../../x.csv", "%2e%2e/%2e%2e/x.csv", ".x"):
        answer = await client.put(f"{path}/files/{name}", content=b"1")
        assert answer.status_code in (404, 405, 409), (name, answer.text)  # the client itself resolves plain dots
    for method, address in (("GET", path), ("DELETE", path), ("POST", f"{path}/inspection")):
        assert (await other.request(method, address)).status_code == 404
    assert (await other.put(f"{path}/files/x.csv", content=b"1")).status_code == 404
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_scopes_decide_and_streamed_bodies_are_not_read_without_one(clients: MakeClient) -> None:
    reader = await clients(Scope.TRAINING_READ)
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 65_536

    answer = await reader.put(f"/training/uploads/{'0' * 16}/files/x.csv", content=body())
    assert (answer.status_code, read) == (403, 0)
    assert (await reader.post("/training/uploads")).status_code == 403
    assert (await reader.get("/training/jobs")).status_code == 200
    writer = await clients(Scope.TRAINING_WRITE, Scope.TRAINING_READ)
    assert (await writer.post(f"/training/jobs/{'0' * 16}/publication", json={})).status_code == 403


async def test_a_full_upload_is_refused_with_507(fleet: Fleet, tmp_path: Path) -> None:
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "training": {"upload_bytes": 1000}})
    desk = TrainingDesk(fleet.store, fleet.store, fleet.registry, settings)
    api = create_api(fleet.store, fleet.store, late_after_s=60.0, registry=fleet.registry, training=desk)
    await add_api_token(fleet.store, "t9", "secret", name="CI", scopes=list(Scope), expires_at_s=9e9)
    headers = {"authorization": f"Bearer {token_text('t9', 'secret')}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://api/api/v1", headers=headers
    ) as client:
        upload_id = (await client.post("/training/uploads")).json()["upload_id"]
        answer = await client.put(f"/training/uploads/{upload_id}/files/x.csv", content=b"x" * 2000)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:vedette:problem:no-room")
        assert (await client.get(f"/training/uploads/{upload_id}")).json()["bytes"] < 1000


async def test_a_job_needs_a_looked_at_upload_and_a_trusted_key(fleet: Fleet, client: httpx.AsyncClient) -> None:
    missing = {"data": {"upload_id": "0" * 16}, "options": {"name": "press"}}
    for body in ({}, {"data": {}, "options": {"name": "press"}}, missing | {"options": {"name": "../x"}}):
        assert (await client.post("/training/jobs", json=body)).status_code == 422
    answer = await client.post("/training/jobs", json=missing)
    assert answer.status_code in (404, 409), answer.text


async def test_counts_say_how_many_samples_are_missing(fleet: Fleet, client: httpx.AsyncClient) -> None:
    for odd in (False, False, True):
        await fleet.send(SHUTTLE, odd=odd)
    wanted = {"bundle_name": SHUTTLE.bundle_name, "device_id": SHUTTLE.device_id}
    counts = (await client.get("/training/samples", params=wanted)).json()
    assert counts["normals"] == counts["judged_normal"] + counts["audits"] > 0
    assert counts["problem"].endswith(f"at least 40: {40 - counts['normals']} more are needed.")
    assert (await client.get("/training/samples", params=wanted | {"group": "x"})).status_code == 422
    unknown = (await client.get("/training/samples", params=wanted | {"device_id": "nobody"})).json()
    assert unknown["problem"]


async def test_jobs_are_listed_cancelled_and_removed(fleet: Fleet, client: httpx.AsyncClient) -> None:
    made = [await add_job(fleet.store, NewJob({"upload_id": "0" * 16}, {"name": "press"}), "ada") for _ in range(3)]
    first = (await client.get("/training/jobs", params={"size": 2})).json()
    second = (await client.get("/training/jobs", params={"size": 2, "cursor": first["next"]})).json()
    found = [item["job_id"] for item in (*first["items"], *second["items"])]
    assert found == [job.job_id for job in reversed(made)]
    path = f"/training/jobs/{made[0].job_id}"
    assert (await client.delete(path)).status_code == 409, "it waits"
    assert (await client.post(f"{path}/cancellation")).json()["state"] == "cancelled"
    assert (await client.post(f"{path}/cancellation")).status_code == 409
    assert (await client.post(f"{path}/publication", json={})).status_code == 409
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
