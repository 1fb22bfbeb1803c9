"""Routes of the accounts of people."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.account_settings import AccountSettings
from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.account_links import LinkPurpose, add_link
from cloud.store.api_tokens import Scope
from cloud.store.fleet import PLACE_PATTERN
from cloud.store.sessions import end_sessions
from cloud.store.users import NAME, NAME_RULE, User, add_user, find_user, list_users, set_disabled, set_role
from cloud.user_roles import UserRole
from shared.errors import SettingsError

UserName = Annotated[str, Path(max_length=64, description="Name of an account.")]
Sites = Annotated[list[Annotated[str, Field(pattern=PLACE_PATTERN, max_length=64)]], Field(max_length=100)]


class UserBody(BaseModel):
    """An account to add; without `sites` it is for all of them."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    role: UserRole = UserRole.VIEWER
    sites: Sites = []


class UserChange(BaseModel):
    """Change of an account; null leaves a value as it is. Another role, other sites and `disabled` end its sessions."""

    model_config = ConfigDict(extra="forbid")

    role: UserRole | None = None
    sites: Sites | None = None
    disabled: bool | None = None


class UserItem(BaseModel):
    """One account. `provider`: it signs in with an OpenID Connect provider."""

    name: str
    role: UserRole
    sites: list[str]
    has_password: bool
    provider: bool
    created_at: str
    signed_in_at: str | None
    disabled_at: str | None


class InvitedUser(UserItem):
    """An account with a one-time link, on which the person chooses a password; it is shown here only."""

    link: str
    valid_s: float


class UserList(BaseModel):
    """All accounts, by name."""

    items: list[UserItem]


class LinkItem(BaseModel):
    """One-time link, on which a person chooses a password."""

    name: str
    link: str
    valid_s: float


def user_routes(reading: Store, writing: Store, settings: AccountSettings) -> APIRouter:
    """Return the routes of accounts."""
    router = api_router("users")

    async def one(name: str) -> dict[str, Any]:
        async with writing.reading() as connection:
            found = await find_user(connection, name)
        if found is None:
            raise not_found(f"User {name!r}")
        return _item(found[0])

    async def invite(request: Request, name: str) -> dict[str, Any]:
        secret, actor = secrets.token_urlsafe(32), caller_of(request).actor
        with _refusals():
            await add_link(
                writing, secret, LinkPurpose.PASSWORD, valid_s=settings.link_valid_s, user_name=name, actor=actor
            )
        link = f"{request.url.scheme}://{request.url.netloc}/link/{secret}"
        return {"name": name, "link": link, "valid_s": settings.link_valid_s}

    @router.get("/users", response_model=UserList, **needs(Scope.USERS_READ))
    async def list_accounts() -> dict[str, Any]:
        """Return all accounts, by name."""
        return {"items": [_item(user) for user in await list_users(reading)]}

    @router.post("/users", response_model=InvitedUser, status_code=201, **needs(Scope.USERS_WRITE, *WITH_BODY, 409))
    async def add_account(request: Request, body: UserBody) -> dict[str, Any]:
        """Add an account, and make a one-time link that sets its password."""
        name, actor = body.name.strip().lower(), caller_of(request).actor
        if not NAME.fullmatch(name):
            raise Problem(422, "invalid-request", NAME_RULE)
        with _refusals():
            async with writing.writing() as connection:
                await add_user(connection, name, body.role, actor=actor, sites=sorted(set(body.sites)))
        return await one(name) | await invite(request, name)

    @router.post("/users/{name}/links", response_model=LinkItem, status_code=201, **needs(Scope.USERS_WRITE, 404, 409))
    async def make_link(request: Request, name: UserName) -> dict[str, Any]:
        """Make a one-time link that sets another password."""
        await one(name)
        return await invite(request, name)

    _add_changes(router, writing, one)
    return router


def _add_changes(router: APIRouter, writing: Store, one: Any) -> None:
    @router.patch("/users/{name}", response_model=UserItem, **needs(Scope.USERS_WRITE, *WITH_BODY, 404, 409))
    async def change_account(request: Request, name: UserName, body: UserChange) -> dict[str, Any]:
        """Change role or sites of an account, disable it, or enable it again."""
        caller, before = caller_of(request), await one(name)
        if caller.is_person and caller.name == name:  # so that an administrator always remains
            raise Problem(409, "own-account", "This is your own account: another administrator can change it.")
        with _refusals():
            if body.role is not None or body.sites is not None:
                sites = sorted(set(body.sites)) if body.sites is not None else None
                await set_role(writing, name, body.role or UserRole(before["role"]), sites, caller.actor)
            if body.disabled is not None:
                await set_disabled(writing, name, disabled=body.disabled, actor=caller.actor)
        return dict(await one(name))

    @router.delete("/users/{name}/sessions", status_code=204, **needs(Scope.USERS_WRITE, 404))
    async def end_all(request: Request, name: UserName) -> None:
        """End all sessions of an account."""
        await one(name)
        await end_sessions(writing, name, actor=caller_of(request).actor, reason="ended by an administrator")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Answer 409 to a change that the store refuses, with its reason."""
    try:
        yield
    except SettingsError as error:
        raise Problem(409, "refused", str(error)) from None


def _item(user: User) -> dict[str, Any]:
    values = {name: value for name, value in asdict(user).items() if name != "subject"}
    return {**with_rfc3339(values), "provider": user.subject is not None}
