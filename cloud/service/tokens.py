"""Enrolment tokens: the store keeps a hash of the secret, which can be spent once before it expires."""

import re
import time

from cloud.service.data_dir import device_addresses, open_existing
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.fleet import add_token
from shared.enrolment import EnrolmentToken
from shared.errors import SettingsError

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def new_token(
    settings: CloudSettings, device_id: str, valid_s: float, secret: str, *, wait_s: float = 0.0
) -> str:
    """Return the text of a token for the device; `secret` must be random and new.

    `wait_s`: time to wait for a service that is just starting.

    Raises SettingsError for an invalid device id, or while the addresses of the service are unknown.
    """
    if not _DEVICE_ID.fullmatch(device_id):
        raise SettingsError(
            f"{device_id[:80]!r} is not a device id: use up to 64 letters, digits, dots, dashes and underscores, "
            "starting with a letter or digit."
        )
    authority = open_existing(settings.data_dir, wait_s)
    address, enrolment_address = device_addresses(settings)
    async with Store(settings.data_dir) as store:
        await add_token(store, secret, device_id, time.time() + valid_s)
    return EnrolmentToken(
        device_id=device_id,
        secret=secret,
        address=address,
        enrolment_address=enrolment_address,
        ca_certificate_pem=authority.certificate_pem.decode(),
    ).to_text()
