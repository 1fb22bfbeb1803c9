"""Service of the cloud: enrolment, ingest, events, heartbeats, and the process that runs them."""
