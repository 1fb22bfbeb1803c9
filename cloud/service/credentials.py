"""TLS credentials: both ports authenticate the service, the device port also the device."""

import datetime as dt
import socket
from collections.abc import Callable
from typing import Any

import grpc

from cloud.service.authority import Authority, ServerIdentity
from cloud.settings import CloudSettings
from shared.addresses import Address
from shared.errors import VedetteError
from shared.logs import EventLog

_LOG = EventLog("credentials")


def server_credentials(
    authority: Authority, names: list[str], *, require_client_certificate: bool
) -> grpc.ServerCredentials:
    """Return credentials that follow the service's certificate, which is renewed while the service runs."""
    identity = authority.server_identity(names)
    renewal: Any = _renewal(authority, names, identity)  # the stubs miss that it may return None
    return grpc.dynamic_ssl_server_credentials(_configuration(authority, identity), renewal, require_client_certificate)


def certificate_names(settings: CloudSettings) -> list[str]:
    """Return all host names and IP addresses under which devices call the service."""
    addresses = (
        settings.listen,
        settings.enrolment_listen,
        settings.advertised_address,
        settings.advertised_enrolment_address,
    )
    hosts = [Address.parse(address).host for address in addresses if address]
    if any(host in ("0.0.0.0", "::") for host in hosts):
        hosts.append(socket.gethostname())
    return [*hosts, *settings.server_names]


def _renewal(
    authority: Authority, names: list[str], identity: ServerIdentity
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Return the callback that gRPC runs before each handshake: a new configuration, or None for no change."""
    renew_at = identity.renew_at

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal renew_at
        if dt.datetime.now(dt.UTC) < renew_at:
            return None
        try:
            newer = authority.server_identity(names)
        except VedetteError as error:  # the old one remains valid for weeks
            _LOG.error("certificate_not_renewed", error=error)
            return None
        renew_at = newer.renew_at
        return _configuration(authority, newer)

    return renewed


def _configuration(authority: Authority, identity: ServerIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key_pem, identity.certificate_pem)], root_certificates=authority.certificate_pem
    )
