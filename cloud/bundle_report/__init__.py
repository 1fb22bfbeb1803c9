"""Reports on single bundles, for the console and the HTTP API."""
