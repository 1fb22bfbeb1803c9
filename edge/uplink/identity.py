"""Identity of the device in `state_dir/identity`: key, certificate, trusted authority, service address."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from shared.errors import CertificateError

FOLDER = "identity"
KEY_FILE, CERTIFICATE_FILE, CA_FILE = "device.key", "device.crt", "ca.crt"
BUNDLE_KEY_FILE, FACTS_FILE = "bundle_key.pem", "identity.json"
ENROL = "Enrol the device: vedette edge enroll --config edge.toml --token TOKEN (vedette cloud token makes one)."


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's credentials, read and checked. `address`: host:port of the service it was enrolled at."""

    device_id: str
    address: str
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    not_after: datetime
    folder: Path


def load_identity(state_dir: Path, now: datetime | None = None) -> Identity:
    """Read the identity and check that it can be used now.

    Raises CertificateError with the file and its fault: missing, unreadable, expired, not yet valid,
    signed by another CA, or not belonging to the key.
    """
    folder = state_dir / FOLDER
    device_id, address = _read_facts(folder / FACTS_FILE)
    key_pem, certificate_pem, ca_pem = (_read(folder / name) for name in (KEY_FILE, CERTIFICATE_FILE, CA_FILE))
    certificate = _certificate(certificate_pem, folder / CERTIFICATE_FILE)
    authority = _certificate(ca_pem, folder / CA_FILE)
    _check_dates(certificate, folder / CERTIFICATE_FILE, now or datetime.now(UTC))
    _check_dates(authority, folder / CA_FILE, now or datetime.now(UTC))
    _check_issuer(certificate, authority, folder)
    _check_key(key_pem, certificate, folder / KEY_FILE)
    not_after = certificate.not_valid_after_utc
    return Identity(device_id, address, key_pem, certificate_pem, ca_pem, not_after, folder)


def is_enrolled(state_dir: Path) -> bool:
    """Return whether the state directory holds an identity."""
    return (state_dir / FOLDER / FACTS_FILE).exists()


def _read_facts(path: Path) -> tuple[str, str]:
    try:
        facts = json.loads(_read(path))
        return str(facts["device_id"]), str(facts["address"])
    except (ValueError, KeyError, TypeError):
        raise CertificateError(f"{path}: damaged. {ENROL}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CertificateError(f"{path}: no such file. {ENROL}") from None
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read ({error.strerror}). Run as the user that enrolled.") from None


def _certificate(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CertificateError(f"{path}: not a certificate in PEM. {ENROL}") from None


def _check_dates(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise CertificateError(f"{path}: expired on {end:%Y-%m-%d %H:%M} UTC. Check the clock, or: {ENROL}")
    if now < start:
        raise CertificateError(f"{path}: not valid before {start:%Y-%m-%d %H:%M} UTC. Set the device's clock.")


def _check_issuer(certificate: x509.Certificate, authority: x509.Certificate, folder: Path) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateError(
            f"{folder / CERTIFICATE_FILE}: foreign, not issued by the authority in {folder / CA_FILE}. {ENROL}"
        ) from None


def _check_key(key_pem: bytes, certificate: x509.Certificate, path: Path) -> None:
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise CertificateError(f"{path}: not a private key in PEM. {ENROL}") from None
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"{path}: does not belong to {CERTIFICATE_FILE}. {ENROL}")
