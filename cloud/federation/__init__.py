"""Federated rounds: Flower's SuperLink, averaging of heads, and the resulting bundle."""
