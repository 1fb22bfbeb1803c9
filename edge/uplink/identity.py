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
RENEWED_FILE = "renewed.pem"  # key and certificate in place of KEY_FILE and CERTIFICATE_FILE, once renewed
RENEWAL_FILE = "renewal.pem"  # the next ones, until a call with them has worked
BUNDLE_KEY_FILE, FACTS_FILE = "bundle_key.pem", "identity.json"
ENROL = "Enrol the device: vedette edge enroll --config edge.toml --token TOKEN (vedette cloud token makes one)."


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's credentials, read and checked.

    `address`: host:port of the service it was enrolled at. `files`: certificate and key, which may be one file.
    """

    device_id: str
    address: str
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    not_before: datetime
    not_after: datetime
    folder: Path
    files: tuple[Path, Path]


def load_identity(state_dir: Path, now: datetime | None = None) -> Identity:
    """Read the identity and check that it can be used now.

    Raises CertificateError with the file and its fault: missing, unreadable, expired, not yet valid,
    signed by another CA, or not belonging to the key.
    """
    folder = state_dir / FOLDER
    renewed = folder / RENEWED_FILE
    files = (renewed, renewed) if renewed.exists() else (folder / CERTIFICATE_FILE, folder / KEY_FILE)
    try:
        return _load(folder, files, now or datetime.now(UTC))
    except CertificateError:
        if not (folder / RENEWAL_FILE).exists():
            raise
        try:  # killed before the renewed certificate was in force, and off until the present one ended
            return load_renewal(state_dir, now)
        except CertificateError:
            pass
        raise


def load_renewal(state_dir: Path, now: datetime | None = None) -> Identity:
    """Read the identity with the renewed key and certificate; raises CertificateError as `load_identity`."""
    folder = state_dir / FOLDER
    return _load(folder, (folder / RENEWAL_FILE,) * 2, now or datetime.now(UTC))


def _load(folder: Path, files: tuple[Path, Path], now: datetime) -> Identity:
    device_id, address = _read_facts(folder / FACTS_FILE)
    certificate_path, key_path = files
    key_pem, certificate_pem, ca_pem = (_read(path) for path in (key_path, certificate_path, folder / CA_FILE))
    certificate = _certificate(certificate_pem, certificate_path)
    authority = _certificate(ca_pem, folder / CA_FILE)
    _check_dates(certificate, certificate_path, now)
    _check_dates(authority, folder / CA_FILE, now)
    _check_issuer(certificate, authority, certificate_path)
    _check_key(key_pem, certificate, key_path)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Identity(device_id, address, key_pem, certificate_pem, ca_pem, start, end, folder, files)


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


def _check_issuer(certificate: x509.Certificate, authority: x509.Certificate, path: Path) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateError(
            f"{path}: foreign, not issued by the authority in {path.with_name(CA_FILE)}. {ENROL}"
        ) from None


def _check_key(key_pem: bytes, certificate: x509.Certificate, path: Path) -> None:
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise CertificateError(f"{path}: not a private key in PEM. {ENROL}") from None
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"{path}: does not belong to the certificate. {ENROL}")
