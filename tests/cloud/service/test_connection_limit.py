"""Addresses of connections in the kernel's tables; rounds that fail."""

import asyncio
import errno
import os
import sys

import pytest

from cloud.service import connection_limit
from cloud.service.connection_limit import ConnectionLimit, _address

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


@pytest.mark.parametrize("name", ["listdir", "read"])
async def test_a_process_without_free_files_goes_on_checking_and_says_so_once(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0

    def fail(*_: object) -> list[str]:
        nonlocal rounds
        rounds += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if name == "listdir":
        monkeypatch.setattr(connection_limit.os, "listdir", fail)
    else:
        monkeypatch.setattr(ConnectionLimit, "check", fail)
    monkeypatch.setattr(connection_limit, "CHECK_EVERY_S", 0.01)
    task = asyncio.create_task(ConnectionLimit({1: 0}, lambda: None).run())
    async with asyncio.timeout(10):
        while rounds < 3 and not task.done():
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    assert [record.getMessage() for record in caplog.records] == ["connections_unchecked"]
