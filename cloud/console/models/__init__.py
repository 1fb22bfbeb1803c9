"""Bundles and their rollouts."""
