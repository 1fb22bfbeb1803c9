"""Data directory: made by the service, used by commands beside it, served by one process or by several roles."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cloud.service.authority import PKI_FOLDER, Authority
from cloud.settings import CloudSettings
from cloud.store.engine import Where, check_store, location_of, relies_on_authority, store_exists
from cloud.store.migrate import migrate
from shared.addresses import Address
from shared.errors import CertificateError, FileLockedError, SettingsError, StorageError
from shared.file_lock import FileLock
from shared.files import write_durably

SERVICE_FILE, SERVE_LOCK = "service.json", "serve.lock"
START_WAIT_S, POLL_S = 5.0, 0.1


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of a running service: host:port each, and the URL of the console."""

    address: str
    enrolment_address: str
    console_address: str
    console_url: str
    pid: int


def prepare(where: Where) -> Authority:
    """Make the data directory, its tables and its certificate authority where they are missing.

    Raises StorageError or CertificateError if one of them cannot be made or read, and CertificateError if the database
    holds devices of an authority that is not here.
    """
    data_dir = location_of(where).data_dir
    with _migrated(where):
        if not Authority.exists(data_dir) and relies_on_authority(where):
            raise _no_authority(where)
        return Authority.open(data_dir)


def migrate_existing(where: Where, wait_s: float = 0.0) -> None:
    """Bring the tables of a service up to date, for a command that needs no authority.

    `wait_s`: time to wait for a service that is just starting. Raises SettingsError if there is no service.
    """
    wait_for_store(where, wait_s)
    with _migrated(where):
        pass


def open_existing(where: Where, wait_s: float = 0.0) -> Authority:
    """Do the same for a command that needs the authority, and return it; raises CertificateError if it is not here."""
    migrate_existing(where, wait_s)
    data_dir = location_of(where).data_dir
    if not Authority.exists(data_dir):
        raise _no_authority(where)
    return Authority.read(data_dir)


def wait_for_store(where: Where, wait_s: float = 0.0) -> None:
    """Return when a service has made its store; raises SettingsError if there is none after `wait_s`."""
    deadline_s = time.monotonic() + wait_s
    while not store_exists(where) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    check_store(where)


def start_wait_s(config: Path | None) -> float:
    """Return how long to wait for a service that is just starting: not at all for one that nobody named."""
    return START_WAIT_S if config is not None else 0.0


@contextlib.contextmanager
def service_lock(data_dir: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the directory for this process, or for several that share it; raises StorageError if another holds it."""
    with _lock(data_dir / SERVE_LOCK, wait=False, shared=shared):
        yield


def service_runs(where: Where) -> bool | None:
    """Return whether a service serves the store; None if only a process on another machine could."""
    location = location_of(where)
    return _is_served(location.data_dir) or (None if location.url else False)


def _is_served(data_dir: Path) -> bool:
    try:
        FileLock(data_dir / SERVE_LOCK).release()
    except FileLockedError:
        return True
    except OSError:  # not to be opened by this user
        return (data_dir / SERVICE_FILE).exists()
    return False


def write_addresses(data_dir: Path, addresses: Addresses) -> None:
    """Write the addresses of the running service for other processes."""
    write_durably(data_dir / SERVICE_FILE, json.dumps(asdict(addresses), indent=2).encode())


def remove_addresses(data_dir: Path) -> None:
    """Remove the addresses of a service that has ended."""
    (data_dir / SERVICE_FILE).unlink(missing_ok=True)


def device_addresses(settings: CloudSettings) -> tuple[str, str]:
    """Return the addresses of device port and enrolment port for devices: as advertised, else as listened on.

    Raises SettingsError if the service uses free ports and does not run, or listens on all addresses.
    """
    return (
        _device_address(settings, "address", settings.advertised_address, settings.listen),
        _device_address(
            settings, "enrolment_address", settings.advertised_enrolment_address, settings.enrolment_listen
        ),
    )


def _device_address(settings: CloudSettings, key: str, advertised: str, listen: str) -> str:
    if advertised:
        return advertised
    address = Address.parse(listen)
    if address.from_here != address:
        raise SettingsError(f"The service listens on all addresses: set advertised_{key} to the address for devices.")
    if address.port:
        return listen
    try:
        return str(json.loads((settings.data_dir / SERVICE_FILE).read_bytes())[key])
    except (OSError, ValueError, KeyError):
        raise SettingsError(
            f"The service uses a free port and does not run: start it first, or set advertised_{key}."
        ) from None


@contextlib.contextmanager
def _migrated(where: Where) -> Iterator[None]:
    """Hold the setup lock of the data directory, which is made where it is missing, with tables up to date."""
    data_dir = location_of(where).data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StorageError(f"{data_dir}: cannot be made ({error.strerror}). Set data_dir to another place.") from None
    with _lock(data_dir / "setup.lock", wait=True):
        migrate(where)
        yield


def _no_authority(where: Where) -> CertificateError:
    location = location_of(where)
    folder = location.data_dir / PKI_FOLDER
    if location.url:
        return CertificateError(
            f"{folder}: the certificate authority of {location} is not on this machine. Copy {PKI_FOLDER}/ from "
            "the machine whose service started first (docs/ROLES.md)."
        )
    return CertificateError(
        f"{folder}: no certificate authority here. Restore it from a backup, or start the service, which makes a new "
        "one, and enrol every device again."
    )


def _lock(path: Path, *, wait: bool, shared: bool = False) -> FileLock:
    """Take a lock that the kernel releases when the process ends."""
    try:
        return FileLock(path, wait=wait, shared=shared)
    except FileLockedError:
        raise StorageError(
            f"{path.parent}: another service runs on this data directory. End it, or set data_dir to another place."
        ) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror}). Check the data directory's owner.") from None
