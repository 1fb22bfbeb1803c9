"""Store in a PostgreSQL database: several processes and machines."""
