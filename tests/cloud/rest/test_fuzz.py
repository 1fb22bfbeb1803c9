"""Any request gets an answer of the API: no fault, and problem details for each error."""

import json
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.group_settings import GroupSettings
from tests.cloud.console.filled_store import SHUTTLE, Fleet
from tests.cloud.rest.test_access import ROUTES

NAMES = (
    *("device", "modality", "route", "decision", "text", "from", "to", "cursor", "size", "current", "actor", "action"),
    *("subject", "name", "keep_verdicts", "state", "kind", "label", "x"),
)
TEXTS = st.text(max_size=40) | st.sampled_from(
    (
        *("", "*", "*%", "1", "-1", "1e400", "nan", "true", "real", "series", "alarm", "bnVsbA", "WzEsMSwxXQ", "\x00"),
        *("2026-11-29T06:30:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.9-23:59", "audit", "label.added"),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LABELS = st.fixed_dictionaries(
    {"label": st.sampled_from(["real", "false_alarm", "missed", "unsure"]) | JSON},
    optional={"author": st.text(max_size=130) | JSON, "note": st.text(max_size=200) | JSON, "x": JSON},
)
URLS = st.sampled_from(["http://127.0.0.1:9/", "https://hooks.example", "http://[::1", "http://10.0.0.1/"]) | TEXTS
WEBHOOKS = st.fixed_dictionaries(
    {"url": URLS},
    optional={
        "decisions": st.lists(st.sampled_from(["normal", "anomalous", "x"])) | JSON,
        "sites": JSON,
        "groups": st.lists(TEXTS) | JSON,
    },
)
SETTINGS = st.dictionaries(st.sampled_from([*GroupSettings.model_fields, "x"]), st.floats() | JSON, max_size=3)
REQUESTS = st.fixed_dictionaries(
    {
        "route": st.sampled_from(sorted(ROUTES)),
        "sample": st.booleans(),
        "part": st.text(min_size=1, max_size=40),
        "query": st.lists(st.tuples(st.sampled_from(NAMES), TEXTS), max_size=3),
        "body": st.binary(max_size=64)
        | (LABELS | SETTINGS | WEBHOOKS | JSON).map(lambda value: json.dumps(value).encode()),
        "headers": st.dictionaries(
            st.sampled_from(["idempotency-key", "if-none-match", "content-type", "content-length", "range"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=140),
            max_size=2,
        ),
    }
)


async def check(client: httpx.AsyncClient, sample_id: str, request: dict[str, Any]) -> None:
    method, path = request["route"].split(" ")
    path = re.sub(r"\{\w+\}", lambda _: sample_id if request["sample"] else quote(request["part"], safe=""), path)
    content = request["body"] if method in ("POST", "PUT") else None
    headers = {"content-type": "application/json"} | request["headers"]
    response = await client.request(method, path, params=request["query"], content=content, headers=headers)
    assert response.status_code in (200, 201, 202, 204, 304, 400, 404, 409, 413, 422), response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["type"].startswith("urn:vedette:problem:")
        assert problem["detail"]


@given(request=REQUESTS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_request_gets_an_answer(fleet: Fleet, client: httpx.AsyncClient, request: dict[str, Any]) -> None:
    await check(client, await first_sample(fleet, client), request)


@pytest.mark.long
@given(request=REQUESTS)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_of_many_requests_gets_an_answer(
    fleet: Fleet, client: httpx.AsyncClient, request: dict[str, Any]
) -> None:
    await check(client, await first_sample(fleet, client), request)


async def first_sample(fleet: Fleet, client: httpx.AsyncClient) -> str:
    items = (await client.get("/verdicts", params={"size": 1})).json()["items"]
    return items[0]["sample_id"] if items else str((await fleet.send(SHUTTLE)).sample_id)
