"""Evaluation of bundles: metrics, router leaderboard, plots, and benchmarks with published results."""
