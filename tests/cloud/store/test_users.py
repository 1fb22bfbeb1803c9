"""Accounts, sessions and one-time links in both back ends."""

import time

import pytest

from cloud.store.account_links import LinkPurpose, add_link, find_link, spend_link
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.sessions import (
    NewSession,
    end_sessions,
    find_sessions,
    note_seen,
    secret_hash,
    sessions_of,
    start_session,
)
from cloud.store.users import add_user, change_password, find_subject, find_user, list_users, set_disabled, set_role
from cloud.user_roles import UserRole
from shared.errors import SettingsError


async def add(store, name: str = "ada", **values: object) -> None:
    async with store.writing() as connection:
        await add_user(connection, name, UserRole.OPERATOR, actor="test", **values)


async def begin(store, secret: str, name: str = "ada", **values: object) -> str:
    facts = {"method": "password", "address": "10.0.0.7", "browser": "a\0b", "idle_s": 100.0, "max_s": 1000.0}
    new = NewSession(secret, f"id-{secret.removeprefix('the-')}"[:16], name, **(facts | values))
    async with store.writing() as connection:
        await start_session(connection, new)
    return new.session_id


async def ids(store, name: str = "ada") -> set[str]:
    return {session.session_id for session in await sessions_of(store, name)}


async def test_an_account_is_found_by_name_and_by_subject(store) -> None:
    await add(store, sites=["hull"], password_hash="hash", subject="https://id.example 7")
    async with store.reading() as connection:
        user, stored = await find_user(connection, "ada")
        assert await find_subject(connection, "https://id.example 7") == user
        assert await find_user(connection, "nobody") is None
    assert (stored, user.role, user.sites, user.has_password) == ("hash", UserRole.OPERATOR, ("hull",), True)
    assert await list_users(store) == [user]
    with pytest.raises(SettingsError, match="exists already"):
        await add(store)


async def test_a_session_is_valid_until_its_end_or_its_idle_time(store) -> None:
    await add(store)
    await begin(store, "one")
    digest = secret_hash("one")
    (session,) = (await find_sessions(store, [digest, secret_hash("other")])).values()
    start_s = session.started_at_s
    assert session.user.name == "ada"
    assert [session.is_valid(start_s + after_s, 100.0) for after_s in (0, 99, 101)] == [True, True, False]
    assert not session.is_valid(start_s + 1001, 1e9)
    await note_seen(store, session, start_s + 59)
    assert (await find_sessions(store, [digest]))[digest].seen_at_s == start_s
    await note_seen(store, session, start_s + 90)
    assert (await find_sessions(store, [digest]))[digest].is_valid(start_s + 150, 100.0)


async def test_a_new_session_removes_the_expired_ones(store) -> None:
    await add(store)
    await begin(store, "old", max_s=-1.0)
    kept = await begin(store, "kept")
    assert await ids(store) == {kept}


async def test_sessions_end_one_by_one_or_all_but_one(store) -> None:
    await add(store)
    await add(store, "bob")
    one, two, three, other = [await begin(store, name) for name in ("one", "two", "three")] + [
        await begin(store, "bobs", "bob")
    ]
    assert await end_sessions(store, "bob", actor="test", only=one) == 0, "not of this account"
    assert await end_sessions(store, "ada", actor="test", only=one) == 1
    assert await end_sessions(store, "ada", actor="test", keep=two) == 1
    assert (await ids(store), await ids(store, "bob")) == ({two}, {other})
    assert three not in await ids(store)


async def test_changes_of_role_or_password_and_disabling_end_sessions_and_links(store) -> None:
    await add(store, password_hash="hash")

    async def change_own_password() -> None:
        async with store.writing() as connection:
            await change_password(connection, "ada", "new", actor="account:ada", keep_session="id-keep")

    changes = [
        (lambda: set_role(store, "ada", UserRole.OPERATOR), {"id-keep", "id-other"}),  # changes nothing
        (lambda: set_role(store, "ada", UserRole.VIEWER, ["hull"]), set()),
        (change_own_password, {"id-keep"}),
        (lambda: set_disabled(store, "ada", disabled=True), set()),
    ]
    for change, left in changes:
        await end_sessions(store, "ada", actor="test")
        await begin(store, "keep")
        await begin(store, "other")
        await add_link(store, "secret", LinkPurpose.PASSWORD, valid_s=60, user_name="ada")
        await change()
        assert await ids(store) == left
        async with store.writing() as connection:
            assert (await spend_link(connection, "secret") is None) == (left != {"id-keep", "id-other"})
    with pytest.raises(SettingsError, match="disabled"):
        await add_link(store, "more", LinkPurpose.SIGN_IN, valid_s=60, user_name="ada")
    await set_disabled(store, "ada", disabled=False)
    await add_link(store, "more", LinkPurpose.SIGN_IN, valid_s=60, user_name="ada")


async def test_a_link_is_spent_once_and_the_first_admin_is_the_first(store) -> None:
    await add_link(store, "first", LinkPurpose.FIRST_ADMIN, valid_s=60)
    await add_link(store, "second", LinkPurpose.FIRST_ADMIN, valid_s=60)
    await add_link(store, "late", LinkPurpose.FIRST_ADMIN, valid_s=-1)
    async with store.writing() as connection:
        assert await find_link(connection, "late") is None
        assert await find_link(connection, "unknown") is None
        assert (await spend_link(connection, "first")).purpose is LinkPurpose.FIRST_ADMIN
        assert await spend_link(connection, "first") is None
    await add(store)
    async with store.reading() as connection:
        assert await find_link(connection, "second") is None, "there is an account now"
    with pytest.raises(SettingsError, match="already"):
        await add_link(store, "third", LinkPurpose.FIRST_ADMIN, valid_s=60)


async def test_no_secret_is_stored_or_logged(store) -> None:
    await add(store, password_hash="hash-of-it")
    await begin(store, "the-secret")
    await add_link(store, "link-secret", LinkPurpose.SIGN_IN, valid_s=60, user_name="ada")
    async with store.reading() as connection:
        stored = [
            (await connection.exec_driver_sql(f"SELECT * FROM {table}")).all()
            for table in ("sessions", "account_links", "audit_log")
        ]
        entries = await audit_page(connection, AuditFilter())
    for secret in ("the-secret", "link-secret", "hash-of-it"):
        assert secret not in str(stored)
    assert {entry.action for entry in entries} == {"user.added", "session.started", "link.made"}
    assert time.time() - min(entry.at_s for entry in entries) < 60
