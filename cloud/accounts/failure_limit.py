"""Bounds on failed attempts, such as sign-ins, by address and account; their memory is bounded, too."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

FAILURES, FAILURES_S = 10, 60.0  # failed attempts of one key in this time
ACCOUNT_FAILURES, ACCOUNT_FAILURES_S = 100, 600.0  # on one account, from all addresses
KNOWN_KEYS = 1024

Key: TypeAlias = str | tuple[str, str]


class FailureLimit:
    """Number of failed attempts of each key in a window of time; the keys seen last are kept."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, failures: int = FAILURES, window_s: float = FAILURES_S
    ) -> None:
        self._clock, self._failures, self._window_s = clock, failures, window_s
        self._windows: OrderedDict[Key, tuple[float, int]] = OrderedDict()

    def wait_s(self, key: Key) -> float:
        """Return the seconds for which attempts of the key are refused; 0 if they are not."""
        end_s, failures = self._windows.get(key, (0.0, 0))
        return max(0.0, end_s - self._clock()) if failures >= self._failures else 0.0

    def failed(self, key: Key) -> None:
        """Count a failed attempt, or one that has just begun."""
        now_s = self._clock()
        end_s, failures = self._windows.pop(key, (0.0, 0))
        self._windows[key] = (end_s, failures + 1) if now_s < end_s else (now_s + self._window_s, 1)
        if len(self._windows) > KNOWN_KEYS:
            self._windows.popitem(last=False)

    def succeeded(self, key: Key) -> None:
        """Take back the count of an attempt that has succeeded."""
        if key in self._windows:
            end_s, failures = self._windows[key]
            self._windows[key] = (end_s, max(0, failures - 1))


class AttemptLimits:
    """Bounds on attempts to sign in: those of an address, those of an address on an account, those on an account.

    One address gives too few failures to reach the bound of an account, so it cannot block the account for others.
    Addresses from which an account has signed in pass that bound: no stranger blocks its owner there.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_address = FailureLimit(clock)
        self._by_pair = FailureLimit(clock, FAILURES, ACCOUNT_FAILURES_S)
        self._by_account = FailureLimit(clock, ACCOUNT_FAILURES, ACCOUNT_FAILURES_S)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return the seconds for which all attempts of the address are refused; 0 if they are not."""
        return self._by_address.wait_s(address)

    def failed(self, address: str) -> None:
        """Count a failed attempt that names no account."""
        self._by_address.failed(address)

    def begin(self, address: str, account: str) -> float:
        """Count an attempt as failed until `succeeded`; return the seconds to wait if it is refused.

        `account` is empty for an attempt that names none.
        """
        limits = self._limits(address, account)
        wait_s = max(limit.wait_s(key) for limit, key in limits)
        if not wait_s:
            for limit, key in limits:
                limit.failed(key)
        return wait_s

    def succeeded(self, address: str, account: str) -> None:
        """Take back the count of an attempt, and remember the address for the account."""
        for limit, key in self._limits(address, account):
            limit.succeeded(key)
        if account:
            self._known[account, address] = None
            self._known.move_to_end((account, address))
            if len(self._known) > KNOWN_KEYS:
                self._known.popitem(last=False)

    def _limits(self, address: str, account: str) -> list[tuple[FailureLimit, Key]]:
        limits: list[tuple[FailureLimit, Key]] = [(self._by_address, address)]
        if account:
            limits.append((self._by_pair, (account, address)))
            if (account, address) not in self._known:
                limits.append((self._by_account, account))
        return limits
