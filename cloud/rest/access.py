"""Access to the HTTP API: tokens in the header Authorization or a session, and a bound on failed attempts."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from cloud.accounts.access_table import SCOPES_OF_ROLE
from cloud.accounts.failure_limit import FailureLimit
from cloud.accounts.identity import signed_in, sites_of
from cloud.accounts.requests import client_address
from cloud.rest.problems import ANY_REQUEST, Problem, problem_responses
from cloud.store import Store
from cloud.store.api_tokens import ApiToken, Scope, find_api_token, note_use
from shared.errors import StorageError
from shared.logs import EventLog

KNOWN_TOKENS = 1024
MAX_HEADER_CHARACTERS = 256
SCOPE_KEY = "x-required-scope"
_LOG = EventLog("api")

_BEARER = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token of `vedette cloud api-token`. `x-required-scope` of an operation names the scope it needs.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: a token or a signed-in account, by its name in the audit log.

    An account with `sites` gets answers about their devices alone.
    """

    name: str
    actor: str
    scopes: frozenset[str]
    is_person: bool = False
    sites: tuple[str, ...] = ()


class Guard:
    """Check of the token of a request; `reading` and `writing` are connections to one store.

    Tokens that were accepted before pass the bound on failures, so that a client behind the same proxy as a failing one
    keeps its access. They are still looked up for each request: a revocation has effect at once.
    """

    def __init__(self, reading: Store, writing: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._reading, self._writing = reading, writing
        self._failures = FailureLimit(clock)
        self._accepted: OrderedDict[bytes, None] = OrderedDict()

    async def caller(self, request: Request) -> Caller:
        """Return the caller of a request: its session, else its token; raises Problem (401, 429) or StorageError."""
        person = signed_in(request.scope)
        if person is not None and person.name:
            scopes = frozenset(map(str, SCOPES_OF_ROLE[person.role]))
            return Caller(person.name, person.actor, scopes, is_person=True, sites=sites_of(request.scope))
        token = await self._token(request)
        return Caller(token.name, token.actor, frozenset(token.scopes))

    async def _token(self, request: Request) -> ApiToken:
        address = client_address(request.scope)
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


def needs(scope: Scope, *errors: int, responses: dict[int | str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the arguments of a route that needs a scope.

    `errors`: statuses of its errors beside those of any request; `responses`: its answers beside the usual one.
    """

    def check(request: Request, _: Annotated[Any, Security(_BEARER)]) -> None:
        if scope.value not in caller_of(request).scopes:
            detail = f"The caller lacks the scope {scope.value}: make a token that has it with vedette cloud api-token."
            raise Problem(403, "scope-missing", detail, scope=scope.value)

    return {
        "dependencies": [Depends(check)],
        "openapi_extra": {SCOPE_KEY: scope.value},
        "responses": problem_responses(*ANY_REQUEST, *errors) | (responses or {}),
    }


def caller_of(request: Request) -> Caller:
    """Return the caller that `Guard` accepted."""
    caller: Caller = request.state.caller
    return caller


def _unauthenticated(reason: str, *, has_token: bool) -> Problem:
    detail = (
        f"The token is {reason}: make one with vedette cloud api-token."
        if has_token
        else "No token: send 'Authorization: Bearer TOKEN' with a token of vedette cloud api-token."
    )
    return Problem(401, "not-authenticated", detail, headers={"WWW-Authenticate": "Bearer"})
