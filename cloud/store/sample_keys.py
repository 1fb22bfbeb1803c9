"""Lookup of a sample by its id, in the words of each database.

On SQLite the id is a unique key of `samples`. On PostgreSQL no key reaches over the partitions of a table, so ids have
a narrow table of their own, which says where the sample is.
"""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, String, column, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import samples

sample_keys = table(  # on PostgreSQL alone: see cloud.store.postgres.partitions
    "sample_keys", column("sample_id", LargeBinary), column("number", BigInteger), column("device_id", String)
)
waiting_from = table("waiting_from", column("number", BigInteger))


def is_sample(connection: AsyncConnection, sample_id: bytes) -> ColumnElement[bool]:
    """Return the condition that a row of `samples` is the one with this id."""
    condition: ColumnElement[bool] = samples.c.sample_id == sample_id
    if connection.dialect.name == "postgresql":
        number = select(sample_keys.c.number).where(sample_keys.c.sample_id == sample_id)
        condition = samples.c.number == number.scalar_subquery()
    return condition


def are_samples(connection: AsyncConnection, sample_ids: Sequence[bytes]) -> ColumnElement[bool]:
    """Return the condition that a row of `samples` is one of those with these ids."""
    if connection.dialect.name == "postgresql":
        return samples.c.number.in_(select(sample_keys.c.number).where(sample_keys.c.sample_id.in_(sample_ids)))
    return samples.c.sample_id.in_(sample_ids)


def may_wait(dialect: str, number: ColumnElement[int]) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that leaves out partitions in which no sample waits; none where there are no partitions."""
    if dialect != "postgresql":
        return ()
    return (number >= select(waiting_from.c.number).scalar_subquery(),)
