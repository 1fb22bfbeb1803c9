"""Baselines that stand beside every verdict or benchmark and are not fused by default."""
