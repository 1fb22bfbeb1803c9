"""Names of indices and constraints of all tables."""

from sqlalchemy import ForeignKeyConstraint, MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def key_to_partitions(column: str, referred: str, ondelete: str | None = None) -> ForeignKeyConstraint:
    """Return a foreign key from or to a table that PostgreSQL partitions, where triggers replace it."""
    return ForeignKeyConstraint([column], [referred], ondelete=ondelete).ddl_if(dialect="sqlite")
