"""Operation of an agent: status, metrics, service manager, and memory."""
