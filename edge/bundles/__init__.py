"""Bundles on a device: fetched, cached, installed, and rolled back."""
