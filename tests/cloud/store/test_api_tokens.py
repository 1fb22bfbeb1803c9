"""Tokens of the HTTP API are found by their whole text only, and end."""

from sqlalchemy import select

from cloud.store.api_tokens import Scope, add_api_token, find_api_token, list_api_tokens, note_use, revoke_api_token
from cloud.store.schema import api_tokens

ALL = {"name": "CI", "scopes": [Scope.VERDICTS_READ, Scope.LABELS_WRITE], "expires_at_s": 5000.0}


async def test_only_the_whole_text_of_a_token_finds_it(store) -> None:
    made = await add_api_token(store, "abc", "a_secret_with_lines", **ALL)
    assert await find_api_token(store, "vedette_abc_a_secret_with_lines") == made
    for text in ("", "vedette", "vedette_abc", "vedette_abc_", "vedette_abc_a", "vedette_xyz_a_secret_with_lines", "ü"):
        assert await find_api_token(store, text) is None
    async with store.reading() as connection:
        assert "a_secret_with_lines" not in str((await connection.execute(select(api_tokens))).all())


async def test_a_token_ends_by_time_or_by_revocation_and_its_use_is_noted_once_a_minute(store) -> None:
    made = await add_api_token(store, "abc", "secret", **ALL)
    assert [made.is_valid(at_s) for at_s in (4999.9, 5000.0)] == [True, False]
    for used_at_s in (1000.0, 1059.0, 1060.0):
        (listed,) = await list_api_tokens(store)
        await note_use(store, listed, used_at_s)
        (after,) = await list_api_tokens(store)
        assert after.last_used_at_s == (1060.0 if used_at_s == 1060.0 else 1000.0)
    await revoke_api_token(store, "abc")
    (revoked,) = await list_api_tokens(store)
    assert not revoked.is_valid(1000.0)
    assert await find_api_token(store, "vedette_abc_secret") == revoked
