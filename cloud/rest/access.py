"""Access to the HTTP API: tokens in the header Authorization, their scopes, and a bound on failed attempts."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from cloud.rest.problems import Problem
from cloud.store import Store
from cloud.store.api_tokens import ApiToken, Scope, find_api_token, note_use
from shared.errors import StorageError
from shared.logs import EventLog

FAILURES, FAILURES_S = 10, 60.0  # failed attempts of one address in this time
KNOWN_ADDRESSES, KNOWN_TOKENS = 1024, 1024
MAX_HEADER_CHARACTERS = 256
SCOPE_KEY = "x-required-scope"
_LOG = EventLog("api")

_BEARER = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token of `vedette cloud api-token`. `x-required-scope` of an operation names the scope it needs.",
)


class FailureLimit:
    """Number of failed attempts of each address in a window of time; the addresses seen last are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return the seconds for which attempts of the address are refused; 0 if they are not."""
        end_s, failures = self._windows.get(address, (0.0, 0))
        return max(0.0, end_s - self._clock()) if failures >= FAILURES else 0.0

    def failed(self, address: str) -> None:
        """Count a failed attempt."""
        now_s = self._clock()
        end_s, failures = self._windows.pop(address, (0.0, 0))
        self._windows[address] = (end_s, failures + 1) if now_s < end_s else (now_s + FAILURES_S, 1)
        if len(self._windows) > KNOWN_ADDRESSES:
            self._windows.popitem(last=False)


class Guard:
    """Check of the token of a request; `reading` and `writing` are connections to one store.

    Tokens that were accepted before pass the bound on failures, so that a client behind the same proxy as a failing one
    keeps its access. They are still looked up for each request: a revocation has effect at once.
    """

    def __init__(self, reading: Store, writing: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._reading, self._writing = reading, writing
        self._failures = FailureLimit(clock)
        self._accepted: OrderedDict[bytes, None] = OrderedDict()

    async def token(self, request: Request) -> ApiToken:
        """Return the token of a request; raises Problem (401, 429) or StorageError."""
        address = request.client.host if request.client is not None else ""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        text = text.strip()
        digest = hashlib.sha256(text.encode()).digest()
        wait_s = self._failures.wait_s(address)
        if wait_s and digest not in self._accepted:
            headers = {"Retry-After": str(int(wait_s) + 1)}
            raise Problem(429, "too-many-failures", "Too many requests without a valid token.", headers=headers)
        is_token = kind.lower() == "bearer" and len(text) <= MAX_HEADER_CHARACTERS
        found = await find_api_token(self._reading, text) if is_token else None
        now_s = time.time()
        if found is None or not found.is_valid(now_s):
            self._failures.failed(address)
            reason = "unknown" if found is None else "revoked" if found.revoked_at_s is not None else "expired"
            token_id = found.token_id if found is not None else ""
            _LOG.warning("api_request_refused", address=address, token=token_id, reason=reason)
            raise _unauthenticated(reason, has_token=bool(text))
        self._remember(digest)
        try:
            await note_use(self._writing, found, now_s)
        except StorageError as error:  # reading goes on while nothing can be written
            _LOG.warning("token_use_not_stored", token=found.token_id, error=error)
        return found

    def _remember(self, digest: bytes) -> None:
        self._accepted[digest] = None
        self._accepted.move_to_end(digest)
        if len(self._accepted) > KNOWN_TOKENS:
            self._accepted.popitem(last=False)


def needs(scope: Scope) -> dict[str, Any]:
    """Return the arguments of a route that needs a scope."""

    def check(request: Request, _: Annotated[Any, Security(_BEARER)]) -> None:
        if scope.value not in token_of(request).scopes:
            detail = f"The token lacks the scope {scope.value}: make one that has it with vedette cloud api-token."
            raise Problem(403, "scope-missing", detail, scope=scope.value)

    return {"dependencies": [Depends(check)], "openapi_extra": {SCOPE_KEY: scope.value}}


def token_of(request: Request) -> ApiToken:
    """Return the token that `Guard` accepted."""
    token: ApiToken = request.state.token
    return token


def _unauthenticated(reason: str, *, has_token: bool) -> Problem:
    detail = (
        f"The token is {reason}: make one with vedette cloud api-token."
        if has_token
        else "No token: send 'Authorization: Bearer TOKEN' with a token of vedette cloud api-token."
    )
    return Problem(401, "not-authenticated", detail, headers={"WWW-Authenticate": "Bearer"})
