"""Enrolment of devices: their names, and the one-time tokens that the command line and the console make.

The store keeps a hash of a token's secret, which can be spent once before it expires.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloud.store import Store
from cloud.store.fleet import NO_CHANGE, PLACE_PATTERN, Place, add_tokens, token_id_of
from shared.enrolment import EnrolmentToken
from shared.errors import SettingsError

_DEVICE_ID = re.compile(PLACE_PATTERN)
_ID_RULE = "use up to 64 letters, digits, dots, dashes and underscores, starting with a letter or digit."


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was made; `text` holds its secret, and the store does not."""

    token_id: str
    device_id: str
    text: str = field(repr=False)
    expires_at_s: float = 0.0

    @property
    def command(self) -> str:
        """Return the command that enrols the device."""
        return f"vedette edge enroll --config edge.toml --token {self.text}"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Facts of the service in a token.

    `addresses` returns those of device port and enrolment port; it raises SettingsError while they are unknown.
    """

    addresses: Callable[[], tuple[str, str]]
    ca_certificate_pem: str
    valid_s: float

    def texts(self, secret_of_device: Mapping[str, str]) -> dict[str, str]:
        """Return the text of the token of each device with its secret; raises SettingsError."""
        address, enrolment_address = self.addresses()
        return {
            device_id: EnrolmentToken(
                device_id=device_id,
                secret=secret,
                address=address,
                enrolment_address=enrolment_address,
                ca_certificate_pem=self.ca_certificate_pem,
            ).to_text()
            for device_id, secret in secret_of_device.items()
        }

    async def new_token(
        self, store: Store, device_id: str, place: Place = NO_CHANGE, *, actor: str | None = None
    ) -> NewToken:
        """Return a new token, which is in the store.

        Raises SettingsError for a name that is not valid, and while the addresses of the service are unknown.
        """
        check_device_id(device_id)
        check_place(place)
        secret, expires_at_s = secrets.token_urlsafe(32), time.time() + self.valid_s
        text = self.texts({device_id: secret})[device_id]
        await add_tokens(store, {secret: device_id}, expires_at_s, place, actor)
        return NewToken(token_id_of(secret), device_id, text, expires_at_s)


def check_device_id(device_id: str, place: str = "") -> None:
    """Raise SettingsError, whose text begins with `place`, unless the id of a device is valid."""
    if not _DEVICE_ID.fullmatch(device_id):
        raise SettingsError(f"{place}{device_id[:80]!r} is not a device id: {_ID_RULE}")


def check_place(place: Place) -> None:
    """Raise SettingsError unless the names of a site and a group are valid."""
    for name in place.columns().values():
        if not _DEVICE_ID.fullmatch(name):
            raise SettingsError(f"{name[:80]!r} is not the name of a site or group: {_ID_RULE}")
