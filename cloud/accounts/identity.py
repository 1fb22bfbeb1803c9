"""Person behind a request, as the session guard leaves it in the scope for pages and routes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.store.users import actor_of
from cloud.user_roles import UserRole

SCOPE_KEY = "vedette.signed_in"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Signed-in account; an empty name is anybody on this machine, where sign-in is off.

    `csrf_token` must come back with each request that changes something: in the header X-CSRF-Token, or in the field
    `csrf` of a form of the account pages. Without `sites` the account is for all of them.
    """

    name: str
    role: UserRole
    sites: tuple[str, ...] = ()
    session_id: str = ""
    csrf_token: str = ""

    @property
    def actor(self) -> str:
        """Return the name of the account in the audit log."""
        return actor_of(self.name)


ANYBODY = SignedIn("", UserRole.VIEWER)
"""Person behind every request where sign-in is off."""


def signed_in(scope: Mapping[str, Any]) -> SignedIn | None:
    """Return the person behind a request, None for a request that needs none."""
    found: SignedIn | None = scope.get(SCOPE_KEY)
    return found


def sites_of(scope: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sites to which the person behind a request is restricted; none for all of them, and for programs."""
    person = signed_in(scope)
    return tuple(sorted(person.sites)) if person is not None else ()
