"""Scoring methods that no default uses; docs/benchmarks/every_method.md has their results."""
