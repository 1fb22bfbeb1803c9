"""OpenID Connect provider: authorization code flow with PKCE, and a verified ID token.

OpenID Connect Core 1.0, section 3.1; PKCE is RFC 7636.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cloud.account_settings import OidcSettings
from cloud.user_roles import UserRole
from shared.errors import SettingsError, SignInError

TIMEOUT_S, KEYS_KEPT_S, FAILURE_KEPT_S, LEEWAY_S = 10.0, 600.0, 5.0, 30
MAX_ANSWER_BYTES = 1024 * 1024
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Secrets of one sign-in, which the browser keeps in a cookie until it returns."""

    state: str
    nonce: str
    verifier: str
    next: str

    @classmethod
    def new(cls, path: str) -> "Attempt":
        """Return a new one; `path` is the page to open afterwards."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, path)

    def to_dict(self) -> dict[str, str]:
        """Return its values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProvidedAccount:
    """Account at the provider with its role here."""

    subject: str
    name: str
    role: UserRole


class OidcProvider:
    """Client of one provider; its metadata and keys are read when they are needed, and kept for KEYS_KEPT_S."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._metadata: tuple[float, dict[str, Any]] = (-KEYS_KEPT_S, {})
        self._keys: tuple[float, KeySet | None] = (-KEYS_KEPT_S, None)
        self._failure = (-FAILURE_KEPT_S, "")
        self._reading = asyncio.Lock()

    async def start(self, attempt: Attempt, return_url: str) -> str:
        """Return the provider's address for the browser; raises SignInError."""
        challenge = hashlib.sha256(attempt.verifier.encode()).digest()
        parameters = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": return_url,
            "scope": " ".join(self._settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        endpoint = str((await self._read_metadata())["authorization_endpoint"])
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode(parameters)

    async def finish(self, attempt: Attempt, code: str, return_url: str) -> ProvidedAccount:
        """Return the account of an authorization code; raises SignInError for one that may not sign in here."""
        metadata = await self._read_metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": return_url,
            "client_id": self._settings.client_id,
            "code_verifier": attempt.verifier,
        }
        secret = self._secret()
        authentication = httpx.BasicAuth(self._settings.client_id, secret) if secret else None
        answer = await _ask("POST", str(metadata["token_endpoint"]), data=form, auth=authentication)
        return self._account(await self._claims(str(answer.get("id_token", "")), attempt.nonce))

    async def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token after all checks of OpenID Connect Core, section 3.1.3.7."""
        client_id = self._settings.client_id
        rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        claims = await self._signed(token)
        try:
            rules.validate(claims)
        except (JoseError, ValueError) as error:
            raise SignInError("The provider's ID token is not valid for this sign-in.") from error
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != client_id:
            raise SignInError("The provider's ID token is for another client.")
        return claims

    async def _signed(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that a key of the provider has signed; read the keys again before it fails."""
        for anew in (False, True):
            try:
                return jwt.decode(token, await self._read_keys(anew=anew), algorithms=ALGORITHMS).claims
            except (JoseError, ValueError):
                continue
        raise SignInError("The provider's ID token is not signed by one of its keys.")

    def _account(self, claims: Mapping[str, Any]) -> ProvidedAccount:
        """Return the account of verified claims; raises SignInError without a role or a domain that may sign in."""
        email, domains = str(claims.get("email", "")).lower(), self._settings.allowed_domains
        is_verified = claims.get("email_verified") is True
        if domains and not (is_verified and email.rpartition("@")[2] in {domain.lower() for domain in domains}):
            raise SignInError("This account has no verified e-mail address of a domain that may sign in here.")
        given = claims.get(self._settings.role_claim, ())
        values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        known = self._settings.roles
        roles = [known[value] for value in values if isinstance(value, str) and value in known]
        if not roles:
            raise SignInError("This account has no role here: an administrator of the provider must give it one.")
        name = email if is_verified and email else str(claims.get("preferred_username") or claims["sub"]).lower()
        if "@" in name and not is_verified:
            raise SignInError("This account has a name like an e-mail address that the provider has not verified.")
        subject = f"{self._settings.issuer} {claims['sub']}"
        return ProvidedAccount(subject, name, max(roles, key=list(UserRole).index))

    async def _read_metadata(self) -> dict[str, Any]:
        """Return the provider's description; anybody can ask for it, so one reading and one failure serve all."""
        async with self._reading:
            read_at_s, metadata = self._metadata
            if time.monotonic() - read_at_s < KEYS_KEPT_S:
                return metadata
            failed_at_s, failure = self._failure
            if time.monotonic() - failed_at_s < FAILURE_KEPT_S:
                raise SignInError(failure)
            try:
                return await self._newest_metadata()
            except SignInError as error:
                self._failure = (time.monotonic(), str(error))
                raise

    async def _newest_metadata(self) -> dict[str, Any]:
        issuer = self._settings.issuer
        metadata = await _ask("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
        missing = {"authorization_endpoint", "token_endpoint", "jwks_uri"} - metadata.keys()
        if metadata.get("issuer") != issuer or missing:
            raise SignInError("The provider's description does not fit the setting accounts.oidc.issuer.")
        self._metadata = (time.monotonic(), metadata)
        return metadata

    async def _read_keys(self, *, anew: bool) -> KeySet:
        read_at_s, keys = self._keys
        if keys is None or anew or time.monotonic() - read_at_s >= KEYS_KEPT_S:
            answer: Any = await _ask("GET", str((await self._read_metadata())["jwks_uri"]))
            try:
                keys = KeySet.import_key_set(answer)
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise SignInError("The provider's keys cannot be read.") from error
            self._keys = (time.monotonic(), keys)
        return keys

    def _secret(self) -> str:
        path = self._settings.client_secret_file
        if path is None:
            return ""
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{path}: the client secret of the provider cannot be read.") from None


async def _ask(method: str, url: str, **options: Any) -> dict[str, Any]:
    """Return the JSON object that a request to the provider answers; raises SignInError."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.request(method, url, headers={"Accept": "application/json"}, **options)
        value = answer.json() if answer.status_code == 200 and len(answer.content) <= MAX_ANSWER_BYTES else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise SignInError("The provider does not answer: try again, or sign in with a password.") from error
    if not isinstance(value, dict):
        raise SignInError("The provider refused the sign-in: try again, or sign in with a password.")
    return value
