"""Requests made from the API's own OpenAPI document, right and wrong ones, get answers that the document describes.

`test_fuzz` sends requests that no document describes.
"""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cloud.rest.app import create_routes
from cloud.store.training_jobs import NewJob, add_job
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet

EXAMPLES, MANY_EXAMPLES = 4, 200  # right ones of each operation, and as many wrong ones


async def fuzz(fleet: Fleet, client: httpx.AsyncClient, examples: int) -> dict[str, set[int]]:
    """Send requests of every operation, and check each answer against the document; the statuses by operation."""
    from schemathesis import GenerationMode  # takes a while to import
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.response_headers_conformance,
        checks.negative_data_rejection,
    ]
    known = await known_names(fleet)
    known["upload_id"] = (await client.post("/training/uploads")).json()["upload_id"]
    loop = asyncio.get_running_loop()
    statuses: dict[str, set[int]] = {}

    async def answer(case: Any) -> None:
        request = case.as_transport_kwargs("http://api", {"authorization": client.headers["authorization"]})
        request.pop("cookies", None)
        if isinstance(request.get("data"), bytes):
            request["content"] = request.pop("data")
        response = await client.request(**request)
        statuses.setdefault(case.operation.label, set()).add(response.status_code)
        case.validate_response(response, checks=wanted)

    def send(operation: Any, mode: GenerationMode) -> None:
        names = {item.name: known[item.name] for item in operation.path_parameters if item.name in known}
        fixed = names if mode.is_positive and operation.method != "delete" else None

        @settings(
            max_examples=examples, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed))
        def example(case: Any) -> None:
            asyncio.run_coroutine_threadsafe(answer(case), loop).result(30)

        example()

    for operation in described_operations(fleet):
        await asyncio.to_thread(send, operation, GenerationMode.POSITIVE)
        if operation.query or operation.body:  # any text may be a name in a path
            await asyncio.to_thread(send, operation, GenerationMode.NEGATIVE)
    return statuses


def described_operations(fleet: Fleet) -> list[Any]:
    """The operations of the API's document; each request has a good token (see test_access), so none is described."""
    from schemathesis import openapi

    document = create_routes(fleet.store, fleet.store, 60.0).openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            del operation["security"]
    return [found.ok() for found in openapi.from_dict(document).get_all_operations()]


async def known_names(fleet: Fleet) -> dict[str, str]:
    """Names of things in a store with verdicts."""
    for odd in (True, False):
        await fleet.send(CAMERA, odd=odd)
        sample = await fleet.send(SHUTTLE, odd=odd)
    bundle, *_ = await fleet.registry.all_current()
    job = await add_job(fleet.store, NewJob({"upload_id": "0" * 16}, {"name": "shuttle"}), "ada")
    names = {"device_id": SHUTTLE.device_id, "bundle_id": bundle.bundle_id, "job_id": job.job_id}
    return {"sample_id": str(sample.sample_id), **names}


def check(statuses: dict[str, set[int]]) -> None:
    assert len(statuses) > 20
    reached = {operation for operation, found in statuses.items() if found & {200, 201, 202, 204}}
    wanted = {operation for operation in statuses if operation.startswith("GET")}
    unknown = (
        "groups/{group}",
        "groups/{group}/forecast",
        "review/items/{item}",
        "rollouts/{number}",
        "comparisons/{number}",
    )
    wanted -= {f"GET /api/v1/{path}" for path in unknown}
    unlikely = ("pictures/{name}", "previews/{name}", "training/samples")
    wanted = {operation for operation in wanted if not operation.endswith(unlikely)}
    assert reached >= wanted | {"POST /api/v1/samples/{sample_id}/labels", "PUT /api/v1/groups/{group}/settings"}


async def test_answers_are_those_of_the_document(fleet: Fleet, client: httpx.AsyncClient) -> None:
    check(await fuzz(fleet, client, EXAMPLES))


@pytest.mark.long
async def test_answers_to_many_requests_are_those_of_the_document(fleet: Fleet, client: httpx.AsyncClient) -> None:
    check(await fuzz(fleet, client, MANY_EXAMPLES))
