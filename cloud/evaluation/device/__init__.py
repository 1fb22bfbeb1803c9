"""Benchmark of the agent on this machine: speed, memory and start, compared with limits and peers."""
