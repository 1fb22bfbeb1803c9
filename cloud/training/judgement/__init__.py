"""Judgement of a trained bundle in words: resolution, corruptions found, forwarded share and drift."""
