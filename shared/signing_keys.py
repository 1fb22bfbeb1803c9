"""Ed25519 keys that sign bundles: PEM files, and fingerprints for people."""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import CertificateError
from shared.files import write_durably


def new_signing_key(path: Path) -> Ed25519PrivateKey:
    """Create a signing key and write it to `path` (PEM, readable by the owner only).

    An existing key is returned and never replaced, for example when two processes start at once.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        write_durably(path, pem, mode=0o600, replace=False)
    except FileExistsError:
        return load_signing_key(path)
    return key


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; raises CertificateError if there is none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path}: no signing key could be read ({error}).") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError(f"{path}: bundles are signed with Ed25519 keys; this is a key of another kind.")
    return key


def load_trusted_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file; raises CertificateError if there is none."""
    try:
        return parse_public_key(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path}: no bundle key could be read ({error.strerror or error}).") from None
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from None


def parse_public_key(pem: bytes) -> Ed25519PublicKey:
    """Return the Ed25519 public key in PEM bytes; raises CertificateError for anything else."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("not a public key in PEM. Give the public half of the key that signs bundles.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("bundles are signed with Ed25519 keys; this is a key of another kind.")
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return the key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: Ed25519PublicKey) -> str:
    """Return a short fingerprint of a key that people can compare by eye."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b32encode(hashlib.sha256(raw).digest())[:12].decode().lower()
