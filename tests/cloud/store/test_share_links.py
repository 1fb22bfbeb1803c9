"""Links that show one verdict: they end, can be revoked, are audited, and go with their sample."""

import uuid

import pytest
from sqlalchemy import delete, select, update

from cloud.store import share_links as links
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.schema import samples, share_links
from cloud.store.share_links import TooManySharesError, add_share, find_share, note_opened, revoke_share, shares_of


async def test_a_link_shows_its_sample_until_it_is_revoked(store, add):
    sample_id = uuid.UUID(bytes=(await add())[0])
    made = await add_share(store, sample_id, 60.0, "user:anna")
    assert made is not None
    share, secret = made
    async with store.reading() as connection:
        found = await find_share(connection, secret)
        assert found == share
        assert found.sample_id == sample_id
        assert await find_share(connection, secret[:-1]) is None
        assert await find_share(connection, "") is None
        assert await find_share(connection, "x" * 10_000) is None
        stored = (await connection.execute(select(share_links.c.secret_sha256))).scalar_one()
    assert secret not in stored
    await note_opened(store, share, "192.0.2.7")
    async with store.reading() as connection:
        (listed,) = await shares_of(connection, sample_id)
    assert listed.opened == 1
    await note_opened(store, listed, "192.0.2.8")
    assert not await revoke_share(store, uuid.uuid4(), share.share_id, "user:ben")
    assert await revoke_share(store, sample_id, share.share_id, "user:ben")
    assert not await revoke_share(store, sample_id, share.share_id, "user:ben")
    async with store.reading() as connection:
        assert await find_share(connection, secret) is None
        entries = await audit_page(connection, AuditFilter(subject=str(sample_id)))
    assert [(entry.action, entry.actor) for entry in entries][::-1] == [
        ("share.made", "user:anna"),
        ("share.opened", "share"),
        ("share.revoked", "user:ben"),
    ]
    assert secret not in str(entries)


async def test_a_link_ends_by_itself_and_goes_with_its_sample(store, add):
    sample_id = uuid.UUID(bytes=(await add())[0])
    made = await add_share(store, sample_id, 60.0, "user:anna")
    assert made is not None
    async with store.writing() as connection:
        await connection.execute(update(share_links).values(expires_at_s=1.0))
    async with store.reading() as connection:
        assert await find_share(connection, made[1]) is None
        assert len(await shares_of(connection, sample_id)) == 1
    assert await add_share(store, sample_id, 60.0, "user:anna") is not None  # deletes what ended long ago
    async with store.reading() as connection:
        assert len(await shares_of(connection, sample_id)) == 1
    async with store.writing() as connection:
        await connection.execute(delete(samples))
    async with store.reading() as connection:
        assert (await connection.execute(select(share_links))).first() is None


async def test_links_of_a_sample_are_few_and_only_of_known_ones(store, add, monkeypatch):
    monkeypatch.setattr(links, "MAX_SHARES", 2)
    sample_id = uuid.UUID(bytes=(await add())[0])
    first = await add_share(store, sample_id, 60.0, "a")
    assert first is not None
    await add_share(store, sample_id, 60.0, "a")
    with pytest.raises(TooManySharesError, match="revoke one first"):
        await add_share(store, sample_id, 60.0, "a")
    await revoke_share(store, sample_id, first[0].share_id, "a")
    assert await add_share(store, sample_id, 60.0, "a") is not None
    assert await add_share(store, uuid.uuid4(), 60.0, "a") is None
