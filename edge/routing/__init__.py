"""Which samples travel, in what form, and at whose cost."""
