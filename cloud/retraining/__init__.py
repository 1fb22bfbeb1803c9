"""Retraining of a bundle from stored samples and their labels, and its comparison with the running bundle."""
