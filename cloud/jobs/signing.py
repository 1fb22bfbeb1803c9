"""Key that signs trained bundles: a private key on this machine whose public half the service trusts."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.store.registry import Registry
from shared.errors import CertificateError
from shared.home import signing_key_path
from shared.signing_keys import key_id, load_signing_key


async def usable_key(registry: Registry, configured: Path | None) -> tuple[Path, Ed25519PrivateKey]:
    """Return the path and the key. Raises CertificateError if there is none here, or if it is not trusted."""
    path = signing_key_path(configured)
    if not path.exists():
        raise CertificateError(
            f"{path.name}: this machine has no key that signs trained bundles. Set training.signing_key in cloud.toml "
            "to a private key whose public half is trusted, or train with vedette train and publish the bundle."
        )
    key = load_signing_key(path)
    trusted = [key_id(each) for each in await registry.key_chain.keys()]
    if (own := key_id(key.public_key())) not in trusted:
        raise CertificateError(
            f"Key {own} of training.signing_key is not trusted by this service: add it with vedette cloud keys add, or "
            "set another one."
        )
    return path, key
