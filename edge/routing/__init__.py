"""Routing: which samples are sent, in which payload form, within which budget."""
