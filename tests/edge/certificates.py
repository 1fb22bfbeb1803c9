"""A certificate authority for tests, with real keys."""

import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from shared.signing_keys import public_pem

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates of servers and devices."""

    def __init__(self, name: str = "Test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), -DAY, 10 * DAY)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, *, server: bool = False, start: datetime.timedelta = -DAY, end: datetime.timedelta = 5 * DAY
    ) -> tuple[bytes, bytes]:
        """A new key and its certificate, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        return key_pem(key), self.sign(key.public_key(), name, server=server, start=start, end=end)

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        *,
        server: bool = False,
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = 5 * DAY,
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, start, end)
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        start: datetime.timedelta,
        end: datetime.timedelta,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
        )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_identity(
    state_dir: Path,
    authority: Authority,
    address: str,
    bundle_key: Ed25519PublicKey,
    *,
    pinned: Authority | None = None,
    **dates: datetime.timedelta,
) -> None:
    """Files of an enrolment; `pinned`: the authority the device trusts and names as its own, if another."""
    folder = state_dir / "identity"
    folder.mkdir(parents=True)
    key, certificate = authority.issue("device-1", **dates)
    (folder / "device.key").write_bytes(key)
    (folder / "device.crt").write_bytes(certificate)
    (folder / "ca.crt").write_bytes((pinned or authority).pem)
    (folder / "bundle_key.pem").write_bytes(public_pem(bundle_key))
    (folder / "identity.json").write_text(json.dumps({"device_id": "device-1", "address": address}))
