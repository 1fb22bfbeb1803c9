"""Benchmark of near copies that stay on the device: `vedette bench repeats`."""
