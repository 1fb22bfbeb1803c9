"""Store of the service: samples, verdicts, events, devices, bundles."""

from cloud.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
