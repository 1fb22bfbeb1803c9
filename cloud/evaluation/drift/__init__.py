"""Benchmark of calibrations under drift: realised false alarms and recall on streams in file order."""
