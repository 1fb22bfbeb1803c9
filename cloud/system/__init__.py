"""Figures of the service and its machine, for administrators: the console and the HTTP API show the same."""
