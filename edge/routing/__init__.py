"""Which samples travel, in what form, and within which budget."""
