"""Benchmark of the service with many simulated devices, honest and hostile: `vedette bench cloud fleet`."""
