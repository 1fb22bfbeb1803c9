"""Table of links that show one verdict to people without an account."""

from sqlalchemy import Column, Double, Index, Integer, String, Table

from cloud.store.metadata import key_to_partitions, metadata
from cloud.store.verdict_columns import Number

share_links = Table(
    "share_links",
    metadata,
    Column("share_id", String(16), primary_key=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),  # the secret itself is never stored
    Column("sample_number", Number, nullable=False),
    key_to_partitions("sample_number", "samples.number", "CASCADE"),
    Column("created_by", String(128), nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("revoked_at_s", Double),
    Column("opened", Integer, nullable=False, server_default="0"),  # how often the page was opened
    Column("opened_at_s", Double),  # for the last time
    Index("ix_share_links_sample_number", "sample_number"),
)
