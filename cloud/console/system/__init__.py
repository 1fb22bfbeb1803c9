"""Figures of the service, audit log, accounts, tokens and settings."""
