"""Into how many rows at a time an engine cuts a batch.

Each stream gets its share, between two bounds. A piece of less than LEAST_BYTES costs more to start than it takes to
compute; beyond MOST_BYTES it needs memory, which grows with it, and wins nothing: rows of a table want to go together,
while one image of 256 x 256 pixels already fills the caches.
"""

LEAST_BYTES, MOST_BYTES = 2**14, 2**18


def piece_rows(batch_rows: int, row_bytes: int, streams: int) -> int:
    """Rows of a piece of a batch that `streams` work on at the same time."""
    share = max(-(-batch_rows // streams), LEAST_BYTES // row_bytes)
    return max(1, min(share, most_rows(row_bytes)))


def most_rows(row_bytes: int) -> int:
    """The most rows of a piece, of so many bytes each."""
    return max(1, MOST_BYTES // row_bytes)
