"""Benchmark of the bound on missed anomalies, on simulated deployments."""
