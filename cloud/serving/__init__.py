"""Judging samples with the analyzers of a bundle: `analysis` with PyTorch, around it the queue's batches."""
