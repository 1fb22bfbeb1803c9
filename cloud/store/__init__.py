"""Store of the service: samples, verdicts, events, devices, bundles."""

from cloud.store.engine import Store

__all__ = ["Store"]
