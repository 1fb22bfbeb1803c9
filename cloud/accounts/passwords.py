"""Hashes of passwords: Argon2id (RFC 9106), computed in threads, a bounded number at a time."""

import asyncio
import base64
import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from cloud.account_settings import AccountSettings

Result = TypeVar("Result")
MIN_CHARACTERS, MAX_CHARACTERS = 12, 256
MAX_WAITING = 16  # beyond it a sign-in is refused at once
_HASH_BYTES, _SALT_BYTES = 32, 16


def password_problem(password: str, name: str) -> str:
    """Return why a new password of an account is not accepted, or an empty text."""
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        return f"The password must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters."
    if len(set(password)) < 4 or (name and name in password.lower()):
        return "The password is too easy to guess: use other characters, and not the name of the account."
    return ""


class Passwords:
    """Hashes and checks of passwords; a check takes the same time for an account without a password."""

    def __init__(self, settings: AccountSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.password_passes,
            memory_cost=settings.password_memory_kib,
            parallelism=1,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=Type.ID,
        )
        cost = f"m={settings.password_memory_kib},t={settings.password_passes},p=1"
        self._of_nobody = f"$argon2id$v=19${cost}${_random_text(_SALT_BYTES)}${_random_text(_HASH_BYTES)}"
        self._slots = asyncio.Semaphore(settings.password_checks)
        self._waiting = 0

    @property
    def is_busy(self) -> bool:
        """Whether so many checks wait that another one should be refused."""
        return self._waiting >= MAX_WAITING

    async def hash(self, password: str) -> str:
        """Return the hash of a password, in the encoded form with its parameters."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether a password has the stored hash; without one it takes the time of a wrong password."""

        def check() -> bool:
            try:
                is_right = self._hasher.verify(stored or self._of_nobody, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False
            return is_right and stored is not None

        return await self._run(check)

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash was made with other parameters than the ones in force."""
        return self._hasher.check_needs_rehash(stored)

    async def _run(self, work: Callable[[], Result]) -> Result:
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def _bytes(password: str) -> bytes:
    """Return the same bytes for the same characters, whichever way the keyboard has composed them."""
    return unicodedata.normalize("NFC", password[: 2 * MAX_CHARACTERS]).encode("utf-8", "surrogatepass")


def _random_text(count: int) -> str:
    return base64.b64encode(secrets.token_bytes(count)).decode().rstrip("=")
