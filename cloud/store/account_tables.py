"""Tables of the accounts of people, their sessions and one-time links, and of the tokens of programs."""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, String, Table

from cloud.store.metadata import metadata

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),  # in lower case
    Column("role", String(16), nullable=False),
    Column("sites", JSON, nullable=False),  # that the account is restricted to; an empty list: all
    Column("password_hash", String(256)),  # of Argon2id; NULL: no sign-in by password
    Column("subject", String(512), unique=True),  # of an OpenID Connect provider: its issuer, a space, the subject
    Column("created_at_s", Double, nullable=False),
    Column("signed_in_at_s", Double),
    Column("disabled_at_s", Double),
)

sessions = Table(  # of signed-in browsers; the end of a session deletes its row
    "sessions",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),  # the secret itself is never stored
    Column("session_id", String(16), nullable=False, unique=True),
    Column("user_name", String(64), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("started_at_s", Double, nullable=False),
    Column("seen_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("address", String(64), nullable=False),
    Column("browser", String(200), nullable=False),
    Index("ix_sessions_user_name", "user_name"),
)

account_links = Table(  # a spent link has no row
    "account_links",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("user_name", String(64), ForeignKey("users.name", ondelete="CASCADE")),  # NULL: of the first admin
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Index("ix_account_links_user_name", "user_name"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("secret_sha256", String(64), nullable=False),  # the secret itself is never stored
    Column("name", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("revoked_at_s", Double),
    Column("last_used_at_s", Double),
)
