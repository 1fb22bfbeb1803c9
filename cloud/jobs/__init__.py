"""Training jobs of the service: uploads, choice of samples, child processes, results. Nothing here trains."""
