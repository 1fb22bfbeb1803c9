"""Requests of foreign pages, as a browser sends them, against a running service with its console."""

import httpx

from cloud.accounts.requests import SESSION_COOKIE
from cloud.service.main import _make_console
from tests.accounts import sign_in
from tests.cloud.service.harness import running, settings_for

NAME = "console.plant.example"


async def status_of(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Return status and text of an answer; of a stream, which does not end, the status alone."""
    async with client.stream("GET", path, headers=headers) as answer:
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        return answer.status_code, "" if is_stream else (await answer.aread()).decode()


async def test_pages_api_and_streams_under_foreign_names_are_refused(tmp_path, biopsies):
    settings = settings_for(tmp_path, console_names=[NAME], trusted_proxies=["127.0.0.1"])
    async with running(settings, biopsies.key, make_console=_make_console) as cloud:
        address = cloud.service.addresses.console_address
        port = address.rpartition(":")[2]
        local, proxied = f"http://{address}", f"https://{NAME}"
        secret = (await sign_in(cloud.service.store)).secret
        cases: list[tuple[dict[str, str], bool]] = [
            ({}, True),
            ({"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}, True),
            ({"Origin": local}, True),
            ({"Host": NAME, "Origin": proxied}, True),
            ({"Host": NAME.upper()}, True),
            ({"Origin": proxied}, True),  # the proxy names the service in Host
            ({"Host": f"evil.example:{port}"}, False),  # its name resolves to this machine
            ({"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}, False),
            ({"Host": f"127.0.0.1.evil.example:{port}"}, False),
            ({"Host": f"evil.example@127.0.0.1:{port}"}, False),
            ({"Host": f"x.{NAME}"}, False),
            ({"Origin": "https://evil.example"}, False),
            ({"Origin": "http://127.0.0.1:3000"}, False),  # another program on this machine
            ({"Origin": "null"}, False),
            ({"Origin": f"https://{NAME}.evil.example"}, False),
            ({"Origin": f"https://{NAME}:8443"}, False),
        ]
        async with httpx.AsyncClient(base_url=local) as client:
            for given, allowed in cases:
                headers = given | {"Cookie": f"{SESSION_COOKIE}={secret}; __Host-{SESSION_COOKIE}={secret}"}
                if NAME in given.get("Host", "").lower():
                    headers["X-Forwarded-Proto"] = "https"  # as the proxy says
                for path in ("/live", "/", "/parts/list", "/api/fleet", "/metrics"):
                    status, text = await status_of(client, path, headers)
                    assert status == (200 if allowed else 403), (path, given)
                assert allowed or "console" in text or "another site" in text
                assert (await client.get("/health", headers=headers)).status_code == 200
