"""HTTP API of the service for other programs, below /api/v1."""

from cloud.rest.app import create_api

__all__ = ["create_api"]
