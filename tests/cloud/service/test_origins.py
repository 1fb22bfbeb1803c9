"""Requests of foreign pages, as a browser sends them, against a running service with its console."""

import httpx
import websockets
from websockets.exceptions import InvalidStatus

from cloud.accounts.requests import SESSION_COOKIE
from cloud.service.main import _make_console
from tests.accounts import sign_in
from tests.cloud.service.harness import running, settings_for

NAME = "console.plant.example"
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


async def socket_opens(address: str, headers: dict[str, str]) -> bool:
    """Return whether a web socket opens; a refused one is answered with 403."""
    options = {"host": address.partition(":")[0], "port": int(address.rpartition(":")[2])}
    others = {name: value for name, value in headers.items() if name != "Host"}
    url = f"ws://{headers.get('Host', address)}{SOCKET}"
    try:
        async with websockets.connect(url, additional_headers=others, **options) as socket:
            return str(await socket.recv()).startswith("0{")
    except InvalidStatus as error:
        if error.response.status_code != 403:
            raise
        return False


async def test_pages_api_and_sockets_under_foreign_names_are_refused(tmp_path, biopsies):
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
                for path in ("/", "/api/fleet", "/metrics", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == (200 if allowed else 403), (path, given)
                assert allowed or "console" in answer.text or "another site" in answer.text
                assert (await client.get("/health", headers=headers)).status_code == 200
                if "@" not in headers.get("Host", ""):  # no URL of a web socket can name such a host
                    assert await socket_opens(address, headers) == allowed, headers
