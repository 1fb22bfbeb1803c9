"""Key that must have signed the first bundles of a service."""

import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.settings import CloudSettings
from shared.errors import CertificateError
from shared.home import signing_key, signing_key_path, trusted_key
from shared.signing_keys import load_trusted_key


def trusted_key_for_service(settings: CloudSettings) -> Ed25519PublicKey:
    """Return `bundle_key`, or the public half of the user's own key, which is made at the first start."""
    if settings.bundle_key is not None:
        return load_trusted_key(settings.bundle_key)
    return signing_key(notice=lambda text: print(text, file=sys.stderr)).public_key()


def trusted_key_for_command(settings: CloudSettings) -> Ed25519PublicKey:
    """Return the same key for a command, which makes none; raises CertificateError if there is none."""
    where = signing_key_path()
    if settings.bundle_key is None and not where.exists():
        raise CertificateError(
            f"{where}: this user has no key. Set bundle_key in the settings to the public key that the service trusts, "
            "or run the command as the service's user."
        )
    return trusted_key(settings.bundle_key)
