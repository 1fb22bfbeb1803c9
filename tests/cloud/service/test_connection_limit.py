"""Addresses of connections in the kernel's tables."""

import sys

import pytest

from cloud.service.connection_limit import _address

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the tables here were printed by a little-endian machine"
)


@pytest.mark.parametrize(
    ("digits", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("0700000A", "10.0.0.7"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("B80D0120000000000000000001000000", "2001:db8::/64"),
    ],
)
def test_an_address_is_read_with_its_words_in_order(digits: str, address: str) -> None:
    assert _address(digits) == address
