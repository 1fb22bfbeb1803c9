"""Scoring methods that the modalities fuse by default."""
