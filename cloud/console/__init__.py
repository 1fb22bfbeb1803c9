"""Operator's console: samples, verdicts and the state of the fleet."""

from cloud.console.app import create_app

__all__ = ["create_app"]
