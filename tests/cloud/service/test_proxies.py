"""Headers of proxies: believed from trusted networks alone, right to left."""

from typing import Any

import pytest

from cloud.service.proxies import TrustedProxies

NETWORKS = ("10.0.0.0/24", "::1", "127.0.0.1")


async def seen(client: str, headers: dict[str, str], kind: str = "http") -> tuple[str, str, str]:
    """Address, scheme and host that the application sees."""
    found: list[Any] = []

    async def app(scope, receive, send) -> None:
        found.append(scope)

    raw = [(name.lower().encode(), value.encode()) for name, value in {"Host": "inner", **headers}.items()]
    scheme = "http" if kind == "http" else "ws"
    scope = {"type": kind, "client": (client, 1), "scheme": scheme, "headers": raw}
    await TrustedProxies(app, NETWORKS)(scope, None, None)
    names = dict(found[0]["headers"])
    assert not any(name.startswith(b"x-forwarded") for name in names)
    return found[0]["client"][0], found[0]["scheme"], names[b"host"].decode()


GIVEN = {"X-Forwarded-For": "8.8.8.8, 10.0.0.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "console.example"}


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        ("10.0.0.2", GIVEN, ("8.8.8.8", "https", "console.example")),
        ("::ffff:10.0.0.2", GIVEN, ("8.8.8.8", "https", "console.example")),
        ("10.0.1.2", GIVEN, ("10.0.1.2", "http", "inner")),  # not trusted
        ("not an address", GIVEN, ("not an address", "http", "inner")),
        ("10.0.0.2", {"X-Forwarded-For": "1.1.1.1, 8.8.8.8"}, ("8.8.8.8", "http", "inner")),  # the browser's own claim
        ("10.0.0.2", {"X-Forwarded-For": "10.0.0.3, 10.0.0.4"}, ("10.0.0.3", "http", "inner")),
        ("10.0.0.2", {"X-Forwarded-For": "8.8.8.8, some text, 10.0.0.3"}, ("10.0.0.3", "http", "inner")),
        ("10.0.0.2", {"X-Forwarded-For": "a\0b"}, ("10.0.0.2", "http", "inner")),
        ("10.0.0.2", {"X-Forwarded-Proto": "https, http"}, ("10.0.0.2", "http", "inner")),
        ("10.0.0.2", {"X-Forwarded-For": " ,,", "X-Forwarded-Host": ""}, ("10.0.0.2", "http", "inner")),
    ],
)
async def test_only_a_trusted_proxy_is_believed(
    client: str, headers: dict[str, str], expected: tuple[str, str, str]
) -> None:
    assert await seen(client, headers) == expected


async def test_a_web_socket_through_https_is_one_of_https() -> None:
    assert (await seen("127.0.0.1", GIVEN, "websocket"))[1] == "wss"
