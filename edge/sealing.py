"""Encryption of files by AES-256-GCM (NIST SP 800-38D), with a new nonce for each file."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import DataError, SettingsError

MAGIC = b"VEDETTE-SEALED-1\n"
KEY_BYTES, NONCE_BYTES = 32, 12


class Seal:
    """Key for encryption; `purpose` keeps a file of one kind from being accepted as another."""

    def __init__(self, key: bytes, purpose: str) -> None:
        self._cipher, self._purpose = AESGCM(key), purpose.encode()

    @classmethod
    def from_file(cls, path: Path, purpose: str) -> "Seal":
        """Return the key in a file of 64 hexadecimal digits; raises SettingsError for anything else."""
        try:
            key = bytes.fromhex(path.read_text().strip())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: no key ({error}). Create one: openssl rand -hex 32 > {path}") from None
        if len(key) != KEY_BYTES:
            raise SettingsError(f"{path}: {len(key)} bytes; a key has 32. Create one: openssl rand -hex 32 > {path}")
        return cls(key, purpose)

    def seal(self, data: bytes) -> bytes:
        """Return the data encrypted, with a tag that reveals any change."""
        nonce = os.urandom(NONCE_BYTES)
        return MAGIC + nonce + self._cipher.encrypt(nonce, data, MAGIC + self._purpose)

    def open(self, sealed: bytes) -> bytes:
        """Return the decrypted data; raises DataError for another key or purpose, or data that was changed."""
        body = sealed.removeprefix(MAGIC)
        try:
            return self._cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], MAGIC + self._purpose)
        except (InvalidTag, ValueError):
            raise DataError("sealed with another key, or damaged") from None


def read_sealed(path: Path, seal: Seal | None) -> bytes:
    """Return the content of a file, decrypted if it is sealed.

    Raises OSError, and DataError if it is sealed with another key, or if there is no `seal` for it.
    """
    data = path.read_bytes()
    if not is_sealed(data):
        return data
    if seal is None:
        raise DataError("it is sealed, and no key was given")
    return seal.open(data)


def is_sealed(data: bytes) -> bool:
    """Return whether `Seal.seal` encrypted the data."""
    return data.startswith(MAGIC)
