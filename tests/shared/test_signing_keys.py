"""Files of signing keys."""

import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import CertificateError
from shared.signing_keys import key_id, load_signing_key, load_trusted_key, new_signing_key, public_pem

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def test_a_signing_key_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "home" / "signing.pem"
    keys: list[bytes] = []

    def make() -> None:
        keys.append(new_signing_key(path).public_key().public_bytes_raw())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(keys)) == 1
    assert keys[0] == load_signing_key(path).public_key().public_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.iterdir())) == 1


def test_keys_survive_their_files_and_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(KEY.public_key()))
    assert key_id(load_trusted_key(path)) == key_id(KEY.public_key())

    elliptic = ec.generate_private_key(ec.SECP256R1())
    private = elliptic.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = elliptic.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for content in (b"", b"-----BEGIN PUBLIC KEY-----\n", private, public, path.read_bytes()):
        other = tmp_path / "other.pem"
        other.write_bytes(content)
        with pytest.raises(CertificateError, match=r"other\.pem"):
            load_signing_key(other)
        if content != path.read_bytes():
            with pytest.raises(CertificateError, match=r"other\.pem"):
                load_trusted_key(other)
    with pytest.raises(CertificateError, match="no bundle key"):
        load_trusted_key(tmp_path / "none.pem")
