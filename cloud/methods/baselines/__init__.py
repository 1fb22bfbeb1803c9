"""Baseline scoring methods: shown beside verdicts and benchmark results, not fused by default."""
