"""Bounds on the notifications that a process keeps, whoever sends them."""

import base64
from typing import Any

import pytest

from cloud.store.engine import MAX_TOLD_BYTES
from cloud.store.postgres.messages import MAX_INCOMPLETE, MAX_PARTS, PART_CHARACTERS, Messages

KEY = "a" * 16


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Messages:
    """Messages without a connection."""

    async def listens_nowhere(_: Messages) -> None:
        return

    monkeypatch.setattr(Messages, "_run", listens_nowhere)
    return Messages("postgresql://nowhere.example/nothing")


def receive(messages: Messages, *payloads: str) -> None:
    connection: Any = None
    for payload in payloads:
        messages._on_notification(connection, 0, "", payload)


def parts(message: bytes, key: str = KEY) -> list[str]:
    data = base64.b64encode(message).decode()
    cut = [data[place : place + PART_CHARACTERS] for place in range(0, len(data), PART_CHARACTERS)]
    return [f"{key} {number} {len(cut)} {part}" for number, part in enumerate(cut)]


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        f"{KEY} a 2 YQ==",
        f"{KEY} 0 b YQ==",
        f"{KEY} 0 2",
        f"{KEY} -1 2 YQ==",
        f"{KEY} 2 2 YQ==",
        f"{KEY} 0 {MAX_PARTS + 1} YQ==",
        f"{KEY} 0 {10**12} YQ==",
        "short 0 2 YQ==",
        f"{'g' * 16} 0 2 YQ==",
        f"{KEY}0 0 2 YQ==",
        f"{KEY} 0 2 {'a' * (PART_CHARACTERS + 1)}",
        f"{KEY} \u0661 2 YQ==",
    ],
)
async def test_what_is_no_part_of_a_message_is_not_kept(messages: Messages, payload: str) -> None:
    receive(messages, payload)
    assert messages._incomplete == {}


async def test_incomplete_messages_are_bounded_in_number_and_size(messages: Messages) -> None:
    arrived: list[bytes] = []
    messages.call_on_message(arrived.append)
    for number in range(3 * MAX_INCOMPLETE):
        receive(messages, f"{number:016x} 0 2 YQ==")
        assert len(messages._incomplete) <= MAX_INCOMPLETE
    for count in (MAX_PARTS, 2, 7):  # one key with several counts never holds more than the largest message
        receive(messages, *(f"{KEY} {number} {count} YQ==" for number in range(1, count)))
        assert all(len(kept) <= MAX_PARTS for kept in messages._incomplete.values())
    assert len(messages._incomplete) <= MAX_INCOMPLETE
    largest = bytes(range(256)) * (MAX_TOLD_BYTES // 256)
    assert len(largest) == MAX_TOLD_BYTES
    receive(messages, *reversed(parts(largest, "b" * 16)))
    assert arrived[-1] == largest
    await messages.close()


async def test_a_message_beyond_the_limit_is_dropped(messages: Messages) -> None:
    arrived: list[bytes] = []
    messages.call_on_message(arrived.append)
    receive(messages, *parts(bytes(MAX_TOLD_BYTES + 3)), *parts(b"last"))
    assert arrived == [b"last"]
    await messages.close()
