"""Benchmarks that measure ratios against a named peer or limit, both in one run: `make bench`."""
