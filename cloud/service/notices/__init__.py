"""Notices of the service: present problems, and messages to webhooks, MQTT brokers and mail servers."""
