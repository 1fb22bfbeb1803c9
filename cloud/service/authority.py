"""Certificate authority that signs the certificates of the service and of its devices.

Keys are P-256. `ca.key` never leaves the data directory. `server.pem` holds the service's key and certificate in one
file, so that they always match. A device's key never leaves the device, which sends a signing request.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import CertificateError, EnrolmentError, StorageError
from shared.files import write_durably
from shared.key_sets import authority_sha256

PKI_FOLDER, KEY_FILE, CERTIFICATE_FILE = "pki", "ca.key", "ca.crt"
CA_DAYS, SERVER_DAYS, DEVICE_DAYS = 7300, 90, 397
RENEW_BEFORE_DAYS = 30
CLOCK_SKEW = dt.timedelta(hours=1)
MAX_REQUEST_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """Certificate of a device; `serial` is hexadecimal."""

    pem: bytes
    serial: str
    expires_at_s: float


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Key and certificate of the service as PEM, and the time of their renewal."""

    key_pem: bytes
    certificate_pem: bytes
    renew_at: dt.datetime


class Authority:
    """Certificate authority of one data directory."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._folder = folder
        self._key = key
        self.certificate = certificate

    @classmethod
    def open(cls, data_dir: Path) -> Self:
        """Read the authority, or make it at first use; the caller holds the setup lock.

        Raises CertificateError for files that do not match or have expired, StorageError if they cannot be written.
        """
        if not cls.exists(data_dir):
            _make_authority(data_dir / PKI_FOLDER)
        return cls.read(data_dir)

    @staticmethod
    def exists(data_dir: Path) -> bool:
        """Return whether the data directory holds an authority."""
        return (data_dir / PKI_FOLDER / CERTIFICATE_FILE).exists()  # written last: without it nothing was ever signed

    @classmethod
    def read(cls, data_dir: Path) -> Self:
        """Read the authority and make nothing; raises CertificateError for files that do not match or have expired."""
        folder = data_dir / PKI_FOLDER
        key_path, certificate_path = folder / KEY_FILE, folder / CERTIFICATE_FILE
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise CertificateError(
                f"{folder}: the certificate authority cannot be read ({error}). Restore ca.key and ca.crt from a "
                "backup, or delete the folder and enrol every device again."
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateError(f"{folder}: ca.key is not the key of ca.crt. Restore both from one backup.")
        if certificate.not_valid_after_utc <= _now():
            raise CertificateError(f"{certificate_path}: expired. Delete {folder} and enrol every device again.")
        return cls(folder, key, certificate)

    @property
    def certificate_pem(self) -> bytes:
        """Certificate of the authority as PEM, which devices trust."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def sha256(self) -> str:
        """Hash of the authority's certificate, which its key sets hold."""
        return authority_sha256(self.certificate_pem)

    def server_identity(self, names: Sequence[str]) -> ServerIdentity:
        """Return the service's certificate for `names` (hosts and IP addresses), renewed when due."""
        path = self._folder / "server.pem"
        wanted = _subject_names(names)
        identity = self._read_server_identity(path, wanted)
        if identity is None:
            identity = self._make_server_identity(wanted)
            write_durably(path, identity.key_pem + identity.certificate_pem, mode=0o600)
        return identity

    def sign_device(self, request_pem: bytes, device_id: str, days: float = DEVICE_DAYS) -> DeviceCertificate:
        """Return a certificate for the key in a signing request; all else in the request is ignored.

        Raises EnrolmentError if the request is damaged, or if the kind or size of its key is not accepted.
        """
        key = _requested_key(request_pem)
        builder = self._builder(device_id, key, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:vedette:device:{device_id}")])
        certificate = builder.add_extension(name, critical=False).sign(self._key, hashes.SHA256())
        return DeviceCertificate(
            certificate.public_bytes(serialization.Encoding.PEM),
            f"{certificate.serial_number:x}",
            certificate.not_valid_after_utc.timestamp(),
        )

    def _read_server_identity(self, path: Path, wanted: list[x509.GeneralName]) -> ServerIdentity | None:
        """Return the stored certificate; None if missing, damaged, foreign, nearly expired or for other names."""
        try:
            data = path.read_bytes()
            key = serialization.load_pem_private_key(data, password=None)
            certificate = x509.load_pem_x509_certificate(data)
            certificate.verify_directly_issued_by(self.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return None
        identity = _identity(key, certificate)
        due = identity.renew_at <= _now() or set(names) != set(wanted) or key.public_key() != certificate.public_key()
        return None if due else identity

    def _make_server_identity(self, wanted: list[x509.GeneralName]) -> ServerIdentity:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder("vedette cloud", key.public_key(), SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False).sign(
            self._key, hashes.SHA256()
        )
        return _identity(key, certificate)

    def _builder(
        self,
        common_name: str,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        days: float,
        usage: x509.ObjectIdentifier,
    ) -> x509.CertificateBuilder:
        end = min(_now() + dt.timedelta(days=days), self.certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - CLOCK_SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Vedette device authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCK_SKEW)
        .not_valid_after(_now() + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error}). Check the data directory's owner.") from None
    write_durably(folder / KEY_FILE, _key_pem(key), mode=0o600)
    write_durably(folder / CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    if len(request_pem) > MAX_REQUEST_BYTES:
        raise EnrolmentError(f"The signing request has {len(request_pem)} bytes, and the limit is {MAX_REQUEST_BYTES}.")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        valid = request.is_signature_valid
        key = request.public_key()
    except Exception as error:  # the parser raises many kinds of errors, all with the same meaning here
        raise EnrolmentError(f"The certificate signing request cannot be read ({error}).") from None
    if not valid:
        raise EnrolmentError("The certificate signing request is not signed with the key it names.")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096:
        return key
    raise EnrolmentError("A device's key is P-256, P-384 or RSA of 2048 to 4096 bits: make a new one.")


def _subject_names(names: Sequence[str]) -> list[x509.GeneralName]:
    result: list[x509.GeneralName] = []
    for name in dict.fromkeys(["localhost", "127.0.0.1", "::1", *names]):
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            result.append(x509.DNSName(name))
    return result


def _identity(key: object, certificate: x509.Certificate) -> ServerIdentity:
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a P-256 key")
    return ServerIdentity(
        _key_pem(key),
        certificate.public_bytes(serialization.Encoding.PEM),
        certificate.not_valid_after_utc - dt.timedelta(days=RENEW_BEFORE_DAYS),
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
