"""The API on the port of a running service."""

import asyncio
import json
import urllib.error
import urllib.request

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.store.api_tokens import Scope, add_api_token
from tests.cloud.service.harness import running, settings_for


def answer(url: str, path: str, token: str = "") -> tuple[int, dict]:
    request = urllib.request.Request(f"{url}api/v1/{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_a_running_service_answers_to_a_token(tmp_path) -> None:
    async with running(settings_for(tmp_path), Ed25519PrivateKey.generate()) as cloud:
        url = cloud.service.addresses.console_url
        values = {"name": "CI", "scopes": [Scope.AUDIT_READ], "expires_at_s": 9e9}
        await add_api_token(cloud.service.store, "abc", "secret", **values)
        device = await cloud.device("press-07")
        found = {
            name: await asyncio.to_thread(answer, url, *arguments)
            for name, arguments in {
                "audit": ("audit?subject=press-07", "vedette_abc_secret"),
                "verdicts": ("verdicts", "vedette_abc_secret"),
                "stranger": ("audit",),
                "document": ("openapi.json",),
            }.items()
        }
    assert {name: status for name, (status, _) in found.items()} == {
        "audit": 200,
        "verdicts": 403,
        "stranger": 401,
        "document": 200,
    }
    enrolled, made = found["audit"][1]["items"]
    assert (enrolled["actor"], enrolled["action"]) == (f"device:{device.device_id}", "device.enrolled")
    assert made["action"] == "token.made"
