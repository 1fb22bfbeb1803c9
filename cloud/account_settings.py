"""Settings of accounts and sessions: section `[accounts]` of `cloud.toml`."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cloud.user_roles import UserRole
from shared.addresses import Address
from shared.settings import Settings

HOUR_S = 3600.0


class OidcSettings(Settings):
    """Settings of an OpenID Connect provider that people sign in with; off without an issuer."""

    issuer: str = Field(
        default="",
        pattern=r"^(https?://[^\s/@?#]+(/[^\s?#]*)?)?$",
        title="Issuer",
        description="URL of the provider, https; empty: no sign-in with a provider",
    )
    client_id: str = Field(default="", title="Client", description="name of this console at the provider")
    client_secret_file: Path | None = Field(
        default=None, title="Client secret", description="file with the client's secret; empty: a public client"
    )
    label: str = Field(default="your organisation", title="Label", description="name of the provider on the button")
    role_claim: str = Field(
        default="groups", min_length=1, title="Claim", description="claim of the ID token whose values give the role"
    )
    roles: dict[str, UserRole] = Field(
        default={}, title="Roles", description="role of each value of the claim; the highest counts, none: refused"
    )
    allowed_domains: tuple[str, ...] = Field(
        default=(), title="Domains", description="domains of verified e-mail addresses that may sign in; none: all"
    )
    scopes: tuple[str, ...] = Field(
        default=("openid", "email", "profile"), title="Scopes", description="scopes that are asked for"
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.issuer:
            return self
        if not self.client_id or not self.roles:
            raise ValueError("issuer: set client_id and roles, too")
        url = urlsplit(self.issuer)
        if url.scheme != "https" and not Address(url.hostname or "", 0).is_loopback:
            raise ValueError("issuer: write https://; http is for a provider on this machine")
        if "openid" not in self.scopes:
            raise ValueError("scopes: openid is needed")
        return self


class AccountSettings(Settings):
    """Settings of accounts and sessions."""

    session_idle_s: float = Field(
        default=12 * HOUR_S, ge=1, title="Idle session", description="seconds without a request until a session ends"
    )
    session_max_s: float = Field(
        default=7 * 24 * HOUR_S, ge=1, title="Session", description="seconds after its start at which a session ends"
    )
    link_valid_s: float = Field(
        default=24 * HOUR_S,
        ge=1,
        le=30 * 24 * HOUR_S,
        title="Link lifetime",
        description="seconds until a one-time link expires",
    )
    password_memory_kib: int = Field(
        default=65_536, ge=8, le=2**22, title="Password memory", description="KiB of memory of one Argon2id hash"
    )
    password_passes: int = Field(
        default=3, ge=1, le=100, title="Password passes", description="passes over the memory of one Argon2id hash"
    )
    password_checks: int = Field(
        default=2, ge=1, le=64, title="Password checks", description="largest number of passwords checked at once"
    )
    oidc: OidcSettings = OidcSettings()
