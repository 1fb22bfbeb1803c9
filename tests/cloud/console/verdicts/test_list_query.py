"""State of the list in its address."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cloud.console import create_app
from cloud.console.verdicts.query import ListQuery
from cloud.console.verdicts.table import table_columns
from cloud.store.verdict_keys import VerdictKey
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, XSS, Fleet


def test_an_address_gives_its_query_again_and_unknown_values_restrict_nothing() -> None:
    query = ListQuery(device="a&b", route="alarm", span="1h", text="100 %", sort="edge", before=VerdictKey(12.5, 3))
    found = parse_qs(urlsplit(query.address()).query)
    assert ListQuery.parse({name: values[0] for name, values in found.items()}) == query
    assert ListQuery.parse({"modality": "smell", "sort": "up", "before": "x", "span": "9y"}) == ListQuery()
    assert ListQuery().address() == "/verdicts"
    both = ListQuery.parse({"before": "1.0:1", "after": "2.0:2"})
    assert (both.before, both.after) == (VerdictKey(1.0, 1), None)


def test_headings_that_sort_lead_there_and_back() -> None:
    columns = {column.title: column for column in table_columns()}
    assert columns["Time"].next_order("") == "oldest"
    assert columns["Time"].next_order("oldest") == ""
    assert columns["Time"].direction("") == "descending"
    assert columns["Fused"].next_order("") == "fused"
    assert columns["Fused"].direction("") == ""
    assert columns["Fused"].direction("fused") == "ascending"
    assert columns["Origin"].orders == ()


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_a_page_is_complete_without_a_script(fleet: Fleet, client: httpx.AsyncClient) -> None:
    shown = await fleet.send(CAMERA, origin=XSS, odd=True)
    other = await fleet.send(SHUTTLE)
    text = (await client.get("/verdicts", params={"device": CAMERA.device_id, "open": str(shown.sample_id)})).text
    assert f'href="/verdict/{shown.sample_id}"' in text
    assert str(other.sample_id) not in text
    assert f'<option value="{CAMERA.device_id}" selected>' in text
    assert "v-facts" in text  # the opened verdict
    assert "<img src=x" not in text
    assert "Newest" in text


async def test_new_verdicts_are_counted_from_a_key(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(3)
    page = (await client.get("/parts/list")).text
    since = page.split('data-since="')[1].split('"')[0]
    assert (await client.get("/parts/new", params={"since": since})).json() == {"new": 0}
    await fleet.send(CAMERA)
    assert (await client.get("/parts/new", params={"since": "nonsense"})).json()["new"] >= 3


async def test_a_page_whose_store_fails_says_so_with_its_frame(fleet: Fleet, client: httpx.AsyncClient) -> None:
    async with fleet.store.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE heartbeats RENAME TO hidden")
    for path in ("/", "/verdicts", "/devices"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert 'role="alert"' in answer.text
        assert "vedette cloud migrate" in answer.text
        assert "data-missing" in answer.text  # its script loads the page again when the store works
