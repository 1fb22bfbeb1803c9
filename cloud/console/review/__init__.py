"""List of verdicts."""
