"""Stored verdicts of a device, read from its file."""

import sqlite3

from edge.uplink.verdicts import VerdictStore
from shared.samples import p_value_from_column


def stored(store: VerdictStore) -> dict[bytes, tuple[str, float | None]]:
    """Return decision and p-value of each stored verdict by sample id, in the order of arrival."""
    connection = sqlite3.connect(store.path)
    try:
        rows = connection.execute("SELECT sample_id, decision, p_value FROM verdicts ORDER BY received_at_s").fetchall()
    finally:
        connection.close()
    return {sample_id: (decision, p_value_from_column(p_value)) for sample_id, decision, p_value in rows}
