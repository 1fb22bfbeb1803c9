"""The paragraph of a verdict by a text model: asked for by the page, marked as such, and by template where it fails."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from cloud.console import create_app
from cloud.explanation_settings import ExplanationSettings
from tests.cloud.console.filled_store import CAMERA, Fleet
from tests.cloud.evidence.model_server import ModelServer, running_model


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with running_model() as running:
        yield running


@pytest.fixture
async def client(fleet: Fleet, model: ModelServer) -> AsyncIterator[httpx.AsyncClient]:
    settings = ExplanationSettings(endpoint=model.url, model="small-1", normal={"default": "Only bricks are normal."})
    app = create_app(fleet.store, fleet.registry, explanations=settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_a_page_shows_the_template_and_asks_for_the_text_of_the_model(
    fleet: Fleet, client: httpx.AsyncClient, model: ModelServer
) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    page = (await client.get(f"/verdict/{sample_id}")).text
    assert f'data-later="/parts/verdict/{sample_id}/text"' in page
    assert "This image is anomalous" in page
    assert model.requests == []
    model.answer = {
        "decision": "anomalous",
        "sentences": [{"text": "Among the bricks this image is anomalous.", "facts": ["verdict"]}],
    }
    part = await client.get(f"/parts/verdict/{sample_id}/text")
    assert "Among the bricks this image is anomalous." in part.text
    assert "Written by the text model small-1" in part.text
    assert part.headers["x-vedette-part"] == "1"
    given = json.loads(model.requests[0]["messages"][1]["content"])
    assert given["normal_at_this_site"] == "Only bricks are normal."


async def test_a_text_that_lies_is_replaced_by_the_template_with_the_reason(
    fleet: Fleet, client: httpx.AsyncClient, model: ModelServer
) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    model.answer = {"decision": "normal", "sentences": [{"text": "<script>alert(1)</script>", "facts": ["verdict"]}]}
    part = (await client.get(f"/parts/verdict/{sample_id}/text")).text
    assert "This image is anomalous" in part
    assert "Written by template: the text of the model was refused: the answer names another decision." in part
    assert "<script>" not in part


async def test_without_an_endpoint_a_page_asks_for_nothing(fleet: Fleet) -> None:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry))
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        assert '/text"' not in (await client.get(f"/verdict/{sample_id}")).text
        part = (await client.get(f"/parts/verdict/{sample_id}/text")).text
    assert "This image is anomalous" in part
    assert "Written by" not in part
