"""Store in a SQLite file, the default: one service on one machine."""
