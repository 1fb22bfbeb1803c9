"""The bundles of the agent's tests."""

from tests.edge.conftest import images, signing_key, tabular

__all__ = ["images", "signing_key", "tabular"]
