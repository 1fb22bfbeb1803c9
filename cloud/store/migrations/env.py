"""Alembic environment that applies the steps on a connection of `cloud.store.migrate`."""

from alembic import context

from cloud.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
