"""One-time token that enrols a device.

A token carries the addresses of the service, the certificate of its authority, and a secret that is spent once. It is
text that can be pasted: `vedette1.` and the base64url of canonical JSON.
"""

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from typing import Self

from shared.errors import EnrolmentError

_PREFIX = "vedette1."
MAX_TOKEN_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """Enrolment token; `address` and `enrolment_address` are host:port of the service's two ports."""

    device_id: str
    secret: str = field(repr=False)
    address: str
    enrolment_address: str
    ca_certificate_pem: str

    def to_text(self) -> str:
        """Return the token as one word."""
        data = json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the token in `text`; raises EnrolmentError if it is not a complete token."""
        text = "".join(text.split())  # a terminal may have broken the line
        if not text.startswith(_PREFIX) or len(text) > MAX_TOKEN_CHARACTERS:
            raise EnrolmentError(f"Not an enrolment token ({_PREFIX}...): make one with vedette cloud token.")
        body = text.removeprefix(_PREFIX)
        try:
            value = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            token = cls(**value)
        except (binascii.Error, ValueError, TypeError, RecursionError):
            raise EnrolmentError("The enrolment token is incomplete or altered: copy all of it again.") from None
        if not all(isinstance(part, str) and part for part in asdict(token).values()):
            raise EnrolmentError("The enrolment token is incomplete: make a new one with vedette cloud token.")
        return token
