"""Judging of samples with the analyzers of a bundle, in batches taken from the queue."""
