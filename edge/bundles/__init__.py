"""The bundles of a device: fetched, kept as current and previous, and swapped in between two batches."""
