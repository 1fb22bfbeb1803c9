"""Home folder of the user, which holds the key that signs their bundles."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import CertificateError, StorageError
from shared.signing_keys import key_id, load_signing_key, load_trusted_key, new_signing_key


def home_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return `$VEDETTE_HOME`, or `.vedette` in the user's home folder."""
    environment = os.environ if environment is None else environment
    named = environment.get("VEDETTE_HOME", "")
    return Path(named).expanduser() if named else Path.home() / ".vedette"


def signing_key_path(path: Path | None = None) -> Path:
    """Return `path`, or the path of the default signing key."""
    return path if path is not None else home_folder() / "signing.pem"


def signing_key(path: Path | None = None, notice: Callable[[str], None] | None = None) -> Ed25519PrivateKey:
    """Return the key at `path`, or the default one, which is made at first use and reported by `notice`.

    Raises CertificateError if `path` does not hold a key, StorageError if the default cannot be written.
    """
    where = signing_key_path(path)
    if path is not None or where.exists():
        return load_signing_key(where)
    try:
        where.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = new_signing_key(where)
    except OSError as error:
        raise StorageError(f"{where}: the signing key cannot be written ({error}). Set VEDETTE_HOME.") from None
    if notice is not None:
        notice(f"Made a signing key for your bundles, id {key_id(key.public_key())}: {where} (keep it secret).")
    return key


def trusted_key(path: Path | None = None) -> Ed25519PublicKey:
    """Return the public key at `path`, or the public half of the default signing key.

    Raises CertificateError if there is none.
    """
    if path is not None:
        return load_trusted_key(path)
    where = signing_key_path()
    if not where.exists():
        raise CertificateError(f"{where}: no signing key yet. Name the trusted public key with --key, or train first.")
    return load_signing_key(where).public_key()
