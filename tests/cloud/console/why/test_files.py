"""Files of one verdict: exports, the expected look of a picture, and normal pictures of its bundle."""

import io
import uuid
import zipfile
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from cloud.console import create_app
from cloud.training.examples import normal_examples
from shared.bundle import EXAMPLES_FILE, npz_bytes, sign
from shared.images import decode_image
from tests.cloud.console.filled_store import CAMERA, KEY, SHUTTLE, Fleet, manifest
from tests.cloud.evidence.test_expected_picture import wall


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_a_verdict_is_exported(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    report = await client.get(f"/verdict/{sample_id}/export.pdf")
    assert report.content.startswith(b"%PDF-")
    assert "attachment" in report.headers["content-disposition"]
    assert report.headers["cache-control"] == "no-store"
    archive = zipfile.ZipFile(io.BytesIO((await client.get(f"/verdict/{sample_id}/export.zip")).content))
    assert f"{sample_id}/verdict.json" in archive.namelist()
    assert (await client.get(f"/verdict/{uuid.uuid4()}/export.zip")).status_code == 404
    assert (await client.get(f"/verdict/{sample_id}/export.exe")).status_code == 422


async def test_the_expected_look_needs_normal_pictures(fleet: Fleet, client: httpx.AsyncClient) -> None:
    alone = (await fleet.send(CAMERA, odd=True)).sample_id
    assert (await client.get(f"/media/{alone}/expected.png")).status_code == 404
    await fleet.send(CAMERA, odd=False)
    answer = await client.get(f"/media/{alone}/expected.png")
    assert answer.headers["content-type"] == "image/png"
    assert decode_image(answer.content).shape == (224, 224, 3)
    row = (await fleet.send(SHUTTLE)).sample_id
    assert (await client.get(f"/media/{row}/expected.png")).status_code == 404
    assert (await client.get(f"/media/{uuid.uuid4()}/expected.png")).status_code == 404


async def test_normal_pictures_are_those_of_the_bundle_that_judged(fleet: Fleet, client: httpx.AsyncClient) -> None:
    before = (await fleet.send(CAMERA)).sample_id
    walls = np.stack([wall(0, 0), wall(200, 100)])
    bundle = sign(manifest(CAMERA, version=2), {EXAMPLES_FILE: npz_bytes(normal_examples(walls, 2))}, KEY)
    fleet.bundle_ids["bricks"] = (await fleet.registry.publish(bundle)).bundle_id
    sample_id = (await fleet.send(CAMERA)).sample_id
    shown = [decode_image((await client.get(f"/media/{sample_id}/normal/{n}.png")).content) for n in range(2)]
    assert sorted(picture.mean() for picture in shown) == sorted(picture.mean() for picture in walls)
    for path in (f"{sample_id}/normal/2.png", f"{sample_id}/normal/-1.png", f"{before}/normal/0.png"):
        assert (await client.get(f"/media/{path}")).status_code == 404, path
    page = (await client.get(f"/verdict/{sample_id}")).text
    assert f"/media/{sample_id}/normal/0.png" in page
    assert "Golden" in page
