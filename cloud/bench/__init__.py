"""Benchmarks of the service: `vedette bench cloud`."""
