"""Signed HTTP requests, the same for alarms of devices and for messages of the service."""

import hashlib
import hmac
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from shared.errors import DataError, VedetteError

MIN_SECRET_BYTES = 16


class NotDeliveredError(VedetteError):
    """A sink did not take a message; it is tried again."""


class Webhook:
    """Client that sends JSON by HTTP POST, signed. Redirections are not followed.

    `Vedette-Signature` is "v1=" and the HMAC-SHA256, in hexadecimal, of the text of `Vedette-Timestamp` (seconds since
    the epoch), a full stop, and the body. The key is `secret`.
    """

    def __init__(self, owner: str, url: str, secret: bytes, ca: Path | None, timeout_s: float) -> None:
        """Read the authority; raises DataError, which names the owner, for a file that cannot be used."""
        self._url, self._secret, self._timeout_s = url, secret, timeout_s
        try:
            context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
        except (OSError, ssl.SSLError) as error:
            raise DataError(f"{owner}: ca cannot be used ({error}).") from None
        self._opener = urllib.request.build_opener(_NoRedirection(), urllib.request.HTTPSHandler(context=context))

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a body; raises NotDeliveredError unless the server answers with a 2xx status."""
        signed = {**headers, **self.signed_headers(body)}
        request = urllib.request.Request(self._url, data=body, method="POST", headers=signed)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                response.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            raise NotDeliveredError(f"the server answers {error.code} {error.reason}") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise NotDeliveredError(f"the server cannot be reached ({reason})") from None

    def signed_headers(self, body: bytes) -> dict[str, str]:
        """Return the headers of a request that is sent now, with the signature of its body."""
        stamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "vedette",
            "Vedette-Timestamp": stamp,
            "Vedette-Signature": f"v1={signature(self._secret, stamp, body)}",
        }


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A signed message goes to whom it was signed for."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        """None: the redirection is an error."""


def read_secret(owner: str, path: Path) -> bytes:
    """Return the secret in a file, without white space at its ends; raises DataError, which names the owner."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{owner}: secret_file cannot be used ({error}).") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise DataError(
            f"{owner}: {path} holds {len(secret)} bytes, and {MIN_SECRET_BYTES} are needed: "
            f"openssl rand -hex 32 > {path}"
        )
    return secret


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 in hexadecimal of stamp, full stop and body."""
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
