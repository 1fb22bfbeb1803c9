"""Sign-in with an OpenID Connect provider that the test starts."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from pydantic import ValidationError

from cloud.account_settings import OidcSettings
from cloud.store.sessions import sessions_of
from cloud.store.users import list_users, set_disabled
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.accounts.conftest import AccountApp
from tests.cloud.accounts.oidc_server import CLIENT, SECRET, OidcServer

ADA = {"email": "Ada@plant.example", "email_verified": True, "groups": ["staff", "operators"]}


@pytest.fixture
def provider() -> Iterator[OidcServer]:
    server = OidcServer()
    server.claims = dict(ADA)
    yield server
    server.close()


@pytest.fixture
def app_settings(provider: OidcServer, tmp_path: Path) -> dict[str, Any]:
    secret = tmp_path / "client.secret"
    secret.write_text(f"{SECRET}\n")
    oidc = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret_file": secret,
        "label": "the plant",
        "roles": {"operators": "operator", "heads": "admin"},
        "allowed_domains": ["plant.example"],
    }
    return {"accounts": {"oidc": oidc}}


async def enter(client: httpx.AsyncClient, provider: OidcServer, path: str = "/devices") -> httpx.Response:
    """What a browser does from the button on the sign-in page until it is back."""
    started = await client.get("/sign-in/provider", params={"next": path})
    assert started.status_code == 303, started.text
    return await client.get(provider.authorize(started.headers["location"]))


async def test_a_person_signs_in_with_the_provider_and_has_its_role(
    account_app: AccountApp, provider: OidcServer
) -> None:
    client = account_app.make()
    assert "Sign in with the plant" in (await client.get("/sign-in")).text
    entered = await enter(client, provider)
    assert (entered.status_code, entered.headers["location"]) == (303, "/devices")
    assert (await client.get("/devices")).json() == {"name": "ada@plant.example"}
    (user,) = await list_users(account_app.store)
    assert (user.role, user.has_password) == (UserRole.OPERATOR, False)
    provider.claims["groups"] = ["operators", "heads"]
    assert (await enter(account_app.make(), provider)).status_code == 303
    (user,) = await list_users(account_app.store)
    assert user.role is UserRole.ADMIN
    assert len(await sessions_of(account_app.store, user.name)) == 1, "the change of the role has ended the other one"
    await set_disabled(account_app.store, user.name, disabled=True)
    refused = await enter(account_app.make(), provider)
    assert (refused.status_code, "is disabled" in refused.text) == (403, True)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"groups": ["staff"]}, "no role here"),
        ({"groups": None}, "no role here"),
        ({"groups": {"operators": 1}}, "no role here"),
        ({"email": "ada@evil.example"}, "no verified e-mail address"),
        ({"email_verified": False}, "no verified e-mail address"),
        ({"iss": "https://evil.example"}, "not valid"),
        ({"aud": "another"}, "not valid"),
        ({"aud": [CLIENT, "another"]}, "another client"),
        ({"exp": int(time.time()) - 3600}, "not valid"),
        ({"exp": None}, "not valid"),
        ({"nonce": "of another sign-in"}, "not valid"),
        ({"nonce": None}, "not valid"),
        ({"sub": None}, "not valid"),
        ({"email": "a b@plant.example"}, "no name that can be used"),
    ],
)
async def test_a_token_for_another_purpose_signs_nobody_in(
    account_app: AccountApp, provider: OidcServer, claims: dict[str, Any], reason: str
) -> None:
    provider.claims |= claims
    client = account_app.make()
    refused = await enter(client, provider)
    assert (refused.status_code, reason in refused.text) == (403, True), refused.text
    assert await list_users(account_app.store) == []
    assert (await client.get("/devices")).status_code == 401


def encoded(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def forged(algorithm: str, secret: bytes) -> Callable[[dict[str, Any]], str]:
    """Signs with a secret that everybody knows, or not at all."""

    def sign(claims: dict[str, Any]) -> str:
        text = encoded({"alg": algorithm, "kid": "one"}) + b"." + encoded(claims)
        signature = hmac.digest(secret, text, "sha256") if secret else b""
        return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    return sign


async def test_a_signature_of_another_key_or_kind_is_refused(account_app: AccountApp, provider: OidcServer) -> None:
    public = provider.key.as_pem(private=False)  # the confusion of a public key with a secret
    for sign in (provider.sign_with(RSAKey.generate_key(2048)), forged("HS256", public), forged("none", b"")):
        provider.sign = sign
        refused = await enter(account_app.make(), provider)
        assert (refused.status_code, "not signed by one of its keys" in refused.text) == (403, True)
    provider.sign = lambda claims: "no token"
    assert (await enter(account_app.make(), provider)).status_code == 403
    assert await list_users(account_app.store) == []


async def test_a_new_key_of_the_provider_is_fetched(account_app: AccountApp, provider: OidcServer) -> None:
    assert (await enter(account_app.make(), provider)).status_code == 303
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})
    provider.sign = provider.sign_with(provider.key)
    assert (await enter(account_app.make(), provider)).status_code == 303


async def test_an_answer_to_another_browser_is_refused(account_app: AccountApp, provider: OidcServer) -> None:
    client, other = account_app.make(), account_app.make()
    address = provider.authorize((await client.get("/sign-in/provider")).headers["location"])
    await other.get("/sign-in/provider")
    for browser in (account_app.make(), other):
        refused = await browser.get(address)
        assert (refused.status_code, "not started in this browser" in refused.text) == (403, True)
    assert (await client.get(address)).status_code == 303
    assert (await client.get(address)).status_code == 403, "once"


async def test_an_account_of_the_same_name_is_not_taken_over(account_app: AccountApp, provider: OidcServer) -> None:
    await sign_in(account_app.store, UserRole.ADMIN, "ada@plant.example")
    refused = await enter(account_app.make(), provider)
    assert (refused.status_code, "exists already" in refused.text) == (403, True)


async def test_a_provider_that_fails_is_one_sentence(
    account_app: AccountApp, provider: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.accounts.provider.FAILURE_KEPT_S", 0.0)
    provider.metadata = {"issuer": "https://evil.example"}
    refused = await account_app.make().get("/sign-in/provider")
    assert (refused.status_code, "accounts.oidc.issuer" in refused.text) == (403, True)
    provider.metadata = {"token_endpoint": "http://127.0.0.1:1/token"}
    refused = await enter(account_app.make(), provider)
    assert (refused.status_code, "does not answer" in refused.text) == (403, True)


async def test_a_failure_of_the_provider_is_kept_for_a_moment(account_app: AccountApp, provider: OidcServer) -> None:
    provider.metadata = {"issuer": "https://evil.example"}
    assert (await account_app.make().get("/sign-in/provider")).status_code == 403
    provider.metadata = {}
    assert (await account_app.make().get("/sign-in/provider")).status_code == 403


@pytest.mark.parametrize(
    "values",
    [
        {"issuer": "http://id.example"},
        {"issuer": "https://id.example", "roles": {}},
        {"issuer": "https://id.example", "client_id": ""},
        {"issuer": "https://id.example", "roles": {"a": "root"}},
        {"issuer": "https://id.example", "scopes": ["email"]},
        {"issuer": "ftp://id.example"},
    ],
)
def test_settings_that_are_not_safe_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OidcSettings.model_validate({"client_id": "x", "roles": {"a": "admin"}, **values})
