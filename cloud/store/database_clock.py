"""Clock of the database, by which claims end: processes on several machines share it, not each other's clocks."""

import time

from sqlalchemy import ColumnElement, Double, cast, extract, func, literal
from sqlalchemy.ext.asyncio import AsyncConnection

POSTGRES_NOW_S: ColumnElement[float] = cast(extract("epoch", func.clock_timestamp()), Double)
"""Present time on PostgreSQL, in seconds since the epoch."""


def database_now_s(connection: AsyncConnection) -> ColumnElement[float]:
    """Return the present time of the database in seconds; processes that share SQLite share its machine's clock."""
    return POSTGRES_NOW_S if connection.dialect.name == "postgresql" else literal(time.time(), Double)
