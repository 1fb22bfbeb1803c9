"""Pages of training: uploads, jobs, results, publication."""
