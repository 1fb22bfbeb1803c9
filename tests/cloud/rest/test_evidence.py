"""Evidence, exports and links of verdicts over HTTP."""

import io
import json
import uuid
import zipfile

import httpx
import pytest

from cloud.rest.app import create_api
from cloud.store.api_tokens import Scope, add_api_token, token_text
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet
from tests.cloud.rest.conftest import SECRET, MakeClient


async def test_evidence_explains_a_verdict_with_numbers_as_numbers(fleet: Fleet, client: httpx.AsyncClient) -> None:
    verdict = await fleet.send(CAMERA, odd=True)
    answer = await client.get(f"/verdicts/{verdict.sample_id}/evidence")
    told = answer.json()
    assert told["cloud"]["p_value"] == verdict.p_value
    assert told["facts"][0]["name"] == "verdict"
    assert told["paragraph"].startswith("This image is anomalous")
    assert told["history"][-1]["sample_id"] == str(verdict.sample_id)
    assert sum(stage["seconds"] for stage in told["stages"]) > 0
    assert (await client.get(f"/verdicts/{uuid.uuid4()}/evidence")).status_code == 404
    waiting = await fleet.leave_waiting(SHUTTLE)
    assert (await client.get(f"/verdicts/{waiting.sample_id}/evidence")).json()["type"].endswith("not-judged")


async def test_exports_are_files(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    report = await client.get(f"/verdicts/{sample_id}/export.pdf")
    assert report.headers["content-type"] == "application/pdf"
    assert f"verdict-{sample_id}.pdf" in report.headers["content-disposition"]
    assert report.content.startswith(b"%PDF-")
    archive = zipfile.ZipFile(io.BytesIO((await client.get(f"/verdicts/{sample_id}/export.zip")).content))
    told = json.loads(archive.read(f"{sample_id}/verdict.json"))
    assert told["sample_id"] == str(sample_id)
    assert (await client.get(f"/verdicts/{sample_id}/export.exe")).status_code == 422
    assert (await client.get(f"/verdicts/{uuid.uuid4()}/export.zip")).status_code == 404


async def test_links_are_made_listed_and_revoked(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path = f"/verdicts/{(await fleet.send(CAMERA)).sample_id}/shares"
    made = await client.post(path, json={"days": 2})
    assert made.status_code == 201
    link = made.json()
    assert link["path"].startswith("/shared/")
    secret = link["path"].rpartition("/")[2]
    (listed,) = (await client.get(path)).json()
    assert listed == {key: value for key, value in link.items() if key != "path"}
    assert secret not in str(listed)
    assert (await client.delete(f"{path}/{link['share_id']}")).status_code == 204
    assert (await client.delete(f"{path}/{link['share_id']}")).status_code == 404
    assert (await client.get(path)).json()[0]["revoked_at"]
    assert (await client.post(f"/verdicts/{uuid.uuid4()}/shares", json={"days": 1})).status_code == 404


@pytest.mark.parametrize("days", [0, -1, 8, 1e9, "x", None])
async def test_a_link_is_not_valid_longer_than_the_settings_allow(
    fleet: Fleet, client: httpx.AsyncClient, days: object
) -> None:
    path = f"/verdicts/{(await fleet.send(CAMERA)).sample_id}/shares"
    assert (await client.post(path, json={"days": days})).status_code == 422
    assert (await client.get(path)).json() == []


async def test_links_can_be_turned_off(fleet: Fleet, clients: MakeClient) -> None:
    await add_api_token(fleet.store, "off", SECRET, name="CI", scopes=(Scope.SHARES_WRITE,), expires_at_s=9e9)
    api = create_api(fleet.store, fleet.store, late_after_s=60.0, share_days=0.0)
    headers = {"authorization": f"Bearer {token_text('off', SECRET)}"}
    sample_id = (await fleet.send(CAMERA)).sample_id
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://api/api/v1", headers=headers
    ) as client:
        answer = await client.post(f"/verdicts/{sample_id}/shares", json={"days": 1})
    assert answer.status_code == 409
    assert "share_days" in answer.json()["detail"]
