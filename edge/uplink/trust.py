"""Keys that may sign this device's bundles: the key set in force, kept in the identity folder."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.uplink.identity import BUNDLE_KEY_FILE, CA_FILE, ENROL, FOLDER
from shared.errors import CertificateError
from shared.files import write_durably
from shared.key_sets import KeySet, TrustedKey, authority_sha256
from shared.logs import EventLog, Throttle
from shared.signing_keys import load_trusted_key
from vedette.v1 import fleet_pb2

KEY_SET_FILE = "key_set.json"

log = EventLog("trust")


class BundleKeys:
    """Trusted keys of a device. It follows the service's key sets, or trusts a fixed key and follows none.

    `problem` is empty, or the reason why the last key sets of the service were not adopted.
    """

    def __init__(self, state_dir: Path, fixed: Path | None = None) -> None:
        """Read the keys; raises CertificateError if there are none, or if they do not fit the identity.

        `fixed`: PEM of the only key to trust.
        """
        self._folder = state_dir / FOLDER
        self._set: KeySet | None = None
        self._fixed_keys: tuple[Ed25519PublicKey, ...] = ()
        self.problem = ""
        self._throttle = Throttle(600.0)
        if fixed is None:
            self._set = _read(self._folder)
        elif not fixed.exists():
            raise CertificateError(
                f"{fixed}: no such file, and without it no bundle can be trusted. Correct bundle_key."
            )
        else:
            self._fixed_keys = (load_trusted_key(fixed),)

    @property
    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Keys that may sign bundles."""
        return self._set.public_keys if self._set is not None else self._fixed_keys

    @property
    def sha256(self) -> str:
        """Hash of the key set in force, hexadecimal; empty for a fixed key."""
        return self._set.sha256 if self._set is not None else ""

    def follow(self, messages: Sequence[fleet_pb2.KeySet]) -> bool:
        """Adopt the key sets that follow the one in force; return whether the trusted keys changed. Blocks.

        A set is on disk before it is in force. A set that does not follow is logged, and ends the sequence.
        """
        before = self._set
        if before is None or not messages:
            self.problem = ""
            return False
        try:
            self._set = _read(self._folder)
            for message in messages if self._set.sha256 == before.sha256 else ():  # otherwise enrolled again meanwhile
                self._adopt(KeySet.from_message(message))
            self.problem = ""
        except (CertificateError, OSError) as error:
            self.problem = f"trusted keys: {error}"
            if self._throttle.allow(self.problem):
                log.error("key_set_refused", error=error, advice="the trusted keys stay; else enrol the device again")
        return self._set != before

    def _adopt(self, following: KeySet) -> None:
        assert self._set is not None
        self._set.check_next(following)
        write_durably(self._folder / KEY_SET_FILE, following.data)
        self._set = following
        log.info("key_set_adopted", serial=following.serial, keys=",".join(following.key_ids))


def check_root(message: fleet_pb2.KeySet, ca_pem: bytes) -> bytes:
    """Return the bytes of the key set that a device begins with; raises CertificateError if it does not fit the CA."""
    root = KeySet.from_message(message)
    if root.content.authority_sha256 != authority_sha256(ca_pem):
        raise CertificateError("the key set belongs to another authority")
    return root.data


def _read(folder: Path) -> KeySet:
    """Return the set on disk, or the root made of the key of the enrolment."""
    path, key_path = folder / KEY_SET_FILE, folder / BUNDLE_KEY_FILE
    if not key_path.exists():
        lack = f"{key_path}: no such file, and without it no bundle can be trusted."
        raise CertificateError(
            f"{lack} {ENROL} Without a service, name the key with bundle_key: "
            "openssl pkey -in ~/.vedette/signing.pem -pubout -out bundle_key.pem"
        )
    try:
        authority = authority_sha256((folder / CA_FILE).read_bytes())
        if not path.exists():
            return KeySet.root([TrustedKey.of(load_trusted_key(key_path))], authority)
        found = KeySet.parse(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{error.filename}: cannot be read ({error.strerror}). {ENROL}") from None
    except CertificateError as error:
        raise CertificateError(f"{path if path.exists() else key_path}: {error} {ENROL}") from None
    if found.content.authority_sha256 != authority:
        raise CertificateError(f"{path}: belongs to another authority than {CA_FILE}. {ENROL}")
    return found
