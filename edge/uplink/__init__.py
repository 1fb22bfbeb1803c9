"""Uplink: the device's identity, its connection to the service, deliveries and events."""
