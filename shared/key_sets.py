"""Key sets: signed lists of the public keys that may sign bundles.

The sets of an installation form a chain. A root set is trusted without a signature: a device gets it at enrolment, from
the service that its token names. Each later set has the next serial number and the hash of the set before it, and a key
of that set signs it. All of them hold the hash of the authority's certificate. So the trusted keys change only with a
private key that is trusted already, and old sets and sets of other installations are refused.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import CertificateError
from shared.signing_keys import key_id
from vedette.v1 import fleet_pb2

MAX_KEYS = 16
MAX_SET_BYTES = 16 * 1024
FIRST_SERIAL = 1
_PREFIX = b"vedette key set\0"  # a manifest starts with "{": the signature of one never fits the other
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrustedKey(_Strict):
    """Public key that may sign bundles; `added_at` is empty for the key that an installation began with."""

    public_key: str = Field(pattern=_SHA256, description="the 32 bytes of an Ed25519 key, hexadecimal")
    added_at: str = Field(default="", max_length=40, description="ISO 8601, UTC")

    @classmethod
    def of(cls, key: Ed25519PublicKey, added_at: str = "") -> Self:
        """Return the entry of a key."""
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return cls(public_key=raw.hex(), added_at=added_at)

    @property
    def key(self) -> Ed25519PublicKey:
        """The key itself."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))

    @property
    def key_id(self) -> str:
        """Fingerprint of the key."""
        return key_id(self.key)


class KeySetContent(_Strict):
    """Contents of a key set."""

    format: Literal[1] = 1
    serial: int = Field(ge=FIRST_SERIAL, lt=2**31)
    authority_sha256: str = Field(pattern=_SHA256, description="of the authority's certificate, DER")
    previous_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="of the set before")
    keys: tuple[TrustedKey, ...] = Field(min_length=1, max_length=MAX_KEYS)

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class KeySet:
    """A key set as bytes and parsed; the signature of a root set is empty."""

    data: bytes
    signature: bytes
    content: KeySetContent

    @classmethod
    def root(cls, keys: Sequence[TrustedKey], authority_sha256: str, serial: int = FIRST_SERIAL) -> Self:
        """Return the set that begins a chain; equal keys of one authority give equal bytes."""
        return cls._of(KeySetContent(serial=serial, authority_sha256=authority_sha256, keys=tuple(keys)), b"")

    @classmethod
    def parse(cls, data: bytes, signature: bytes = b"") -> Self:
        """Return the set in bytes, without verification; raises CertificateError if they hold none."""
        try:
            if len(data) > MAX_SET_BYTES:
                raise ValueError(f"{len(data)} bytes")
            return cls(data, signature, KeySetContent.model_validate_json(data))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise CertificateError(f"The key set cannot be read ({reason}). Update Vedette, or enrol again.") from None

    @classmethod
    def from_message(cls, message: fleet_pb2.KeySet) -> Self:
        """Return the set in a message of the wire, without verification; raises CertificateError."""
        return cls.parse(message.data, message.signature)

    def to_message(self) -> fleet_pb2.KeySet:
        """Return the message of the wire."""
        return fleet_pb2.KeySet(data=self.data, signature=self.signature)

    @property
    def serial(self) -> int:
        """Serial number; that of a later set is higher."""
        return self.content.serial

    @property
    def sha256(self) -> str:
        """Hash of the set, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def public_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Keys that may sign bundles and the next set, in the order in which they were added."""
        return tuple(entry.key for entry in self.content.keys)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Fingerprints of the keys."""
        return tuple(entry.key_id for entry in self.content.keys)

    def next(self, keys: Sequence[TrustedKey], signing_key: Ed25519PrivateKey) -> Self:
        """Return the set that follows this one; raises CertificateError if the signing key is not in this one."""
        signer = key_id(signing_key.public_key())
        if signer not in self.key_ids:
            raise CertificateError(
                f"Key {signer} is not trusted and cannot sign a key set: name the private half of "
                f"{' or '.join(self.key_ids)} with --signing-key."
            )
        content = KeySetContent(
            serial=self.serial + 1,
            authority_sha256=self.content.authority_sha256,
            previous_sha256=self.sha256,
            keys=tuple(keys),
        )
        return self._of(content, signing_key.sign(_PREFIX + content.to_bytes()))

    def check_next(self, following: "KeySet") -> None:
        """Raise CertificateError unless `following` is the next set of this chain, signed by a key of this set."""
        where, content = f"Key set {following.serial}", following.content
        if content.authority_sha256 != self.content.authority_sha256:
            raise CertificateError(f"{where} belongs to another authority.")
        if content.serial != self.serial + 1:
            raise CertificateError(f"{where} does not follow set {self.serial}.")
        if content.previous_sha256 != self.sha256:
            raise CertificateError(f"{where} does not continue this set {self.serial}, but another one.")
        if not any(_signed_by(key, following) for key in self.public_keys):
            raise CertificateError(f"{where} is not signed by a key of set {self.serial}.")

    @classmethod
    def _of(cls, content: KeySetContent, signature: bytes) -> Self:
        return cls(content.to_bytes(), signature, content)


def authority_sha256(certificate_pem: bytes) -> str:
    """Return the hash of the authority's certificate; raises CertificateError for anything else."""
    try:
        return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()
    except ValueError:
        raise CertificateError("The authority's certificate cannot be read. Enrol the device again.") from None


def now_text() -> str:
    """Return the present time for `TrustedKey.added_at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _signed_by(key: Ed25519PublicKey, signed: KeySet) -> bool:
    try:
        key.verify(signed.signature, _PREFIX + signed.data)
    except InvalidSignature:
        return False
    return True
