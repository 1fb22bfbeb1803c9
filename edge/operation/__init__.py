"""What those who run an agent see of it, and what it asks of its machine."""
