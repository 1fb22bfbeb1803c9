"""Enrolment tokens that commands make, on standard output or in files."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cloud.enrolment import Enrolment, check_device_id, check_place
from cloud.service.authority import Authority
from cloud.service.data_dir import device_addresses, open_existing
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.fleet import NO_CHANGE, Place, add_tokens
from shared.errors import SettingsError
from shared.files import write_durably

TOKEN_SUFFIX = ".token"


async def new_tokens(
    settings: CloudSettings,
    secrets: Mapping[str, str],
    valid_s: float,
    *,
    output: Path | None = None,
    wait_s: float = 0.0,
    place: Place = NO_CHANGE,
) -> dict[str, str]:
    """Return the text of one token for each device, all made in one transaction.

    Args:
        settings: Settings of the service.
        secrets: Secret of each device id; a secret must be random and new.
        valid_s: Seconds until the tokens expire.
        output: Folder that gets one file `DEVICE.token` each, readable only by its owner; None for no files.
        wait_s: Time to wait for a service that is just starting.
        place: Site and group that the devices get when they enrol.

    Raises:
        SettingsError: For an invalid device id, while the addresses of the service are unknown, or if a file is in
            place of the folder or of a token. Then no token is made.
        FileNotWrittenError: If a file cannot be written. Then no token is made and no file is left.
    """
    for device_id in secrets:
        check_device_id(device_id)
    check_place(place)
    paths = {device_id: token_path(output, device_id) for device_id in secrets} if output is not None else {}
    if output is not None and not output.is_dir() and (output.exists() or output.is_symlink()):
        raise SettingsError(f"{output}: not a folder. Give --output a folder, or a new one.")
    _check_new(list(paths.values()))
    authority = open_existing(settings.store, wait_s)
    texts = enrolment_of(settings, authority).texts(secrets)
    written: list[Path] = []
    try:
        # Files first: a file whose token is not in the store is worthless, and a lost token cannot be shown again.
        for device_id, path in paths.items():
            _write_new(path, texts[device_id])
            written.append(path)
        async with open_store(settings.store) as store:
            device_of_secret = {secret: device_id for device_id, secret in secrets.items()}
            await add_tokens(store, device_of_secret, time.time() + valid_s, place)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return texts


def enrolment_of(settings: CloudSettings, authority: Authority) -> Enrolment:
    """Return the enrolment at the service with these settings."""
    certificate = authority.certificate_pem.decode()
    return Enrolment(partial(device_addresses, settings), certificate, settings.token_valid_s)


def read_device_ids(path: Path) -> list[str]:
    """Return the device ids of a file, one per line; blank lines and lines that start with # are left out.

    Raises SettingsError, which names the line, for an invalid or repeated id; also if the file has none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{path}: cannot be read ({reason}). Give --many a text file of device ids.") from None
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        device_id = line.strip()
        if not device_id or device_id.startswith("#"):
            continue
        check_device_id(device_id, f"{path}, line {number}: ")
        if device_id in line_of:
            raise SettingsError(
                f"{path}, line {number}: {device_id!r} is in line {line_of[device_id]} already: remove one of them."
            )
        line_of[device_id] = number
    if not line_of:
        raise SettingsError(f"{path}: no device id in it. Write one on each line.")
    return list(line_of)


def token_path(folder: Path, device_id: str) -> Path:
    """Return the path of a device's token file in `folder`."""
    return folder / f"{device_id}{TOKEN_SUFFIX}"


def _check_new(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise _exists(path)


def _write_new(path: Path, text: str) -> None:
    try:
        write_durably(path, f"{text}\n".encode(), mode=0o600, replace=False)
    except FileExistsError:
        raise _exists(path) from None


def _exists(path: Path) -> SettingsError:
    return SettingsError(
        f"{path} exists already, and no token was made: move it away, or give --output another folder."
    )
