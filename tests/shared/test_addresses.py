"""Parsing host:port."""

import pytest

from shared.addresses import Address, is_host


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7443", "127.0.0.1", 7443),
        ("[::1]:0", "::1", 0),
        ("a-b.example:443", "a-b.example", 443),
        ("x_y:1", "x_y", 1),
    ],
)
def test_host_and_port_are_parsed(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address(host, port)) == text


@pytest.mark.parametrize(
    "text",
    ["", "7443", "host", "host:", ":1", "::1:80", "[::1:80", "host:70000", "host:-1", "host:x", "host:²", "a b:1"],
)
def test_other_text_raises(text: str) -> None:
    with pytest.raises(ValueError, match="write host:port"):
        Address.parse(text)


def test_host_names_have_no_underscore_but_ip_addresses_pass() -> None:
    for host in ("plant-7.example", "::1"):
        assert is_host(host)
    for text in ("x_y", "-a", "a..b"):
        assert not is_host(text)
