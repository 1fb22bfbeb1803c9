"""Rate limits by key, such as an address or a device, with a bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import unquote

from shared.addresses import network_of

MAX_ADDRESSES = 10_000


class RateLimit:
    """Token bucket for each key: `burst` attempts at once, then one every `60 / per_minute` seconds.

    Count either attempts, by `wait_s`, or amounts that are known only afterwards, by `spend` and `debt_s`.
    """

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and at which time

    def wait_s(self, key: str) -> float:
        """Count an attempt; return 0 if it is allowed, else the seconds until the next one is."""
        left = self._left(key)
        if left >= 1:
            self._keep(key, left - 1)
            return 0.0
        return (1 - left) / self._per_s

    def give_back(self, key: str) -> None:
        """Undo the count of an attempt that succeeded."""
        self._keep(key, self._left(key) + 1)

    def spend(self, key: str, amount: float) -> None:
        """Count `amount` that was used, also if fewer tokens are left."""
        self._keep(key, self._left(key) - amount)

    def debt_s(self, key: str) -> float:
        """Return the seconds until all that was spent is allowed; 0 if it is."""
        return max(0.0, -self._left(key) / self._per_s)

    def _left(self, key: str) -> float:
        left, at_s = self._buckets.get(key, (float(self._burst), self._clock()))
        return min(self._burst, left + (self._clock() - at_s) * self._per_s)

    def _keep(self, key: str, left: float) -> None:
        self._buckets[key] = (min(left, self._burst), self._clock())
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)


def address_of(peer: str) -> str:
    """Return the address in a peer's name of gRPC, such as `ipv4:10.0.0.7:5012`; of IPv6 its network."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind != "ipv6":
        return peer
    return network_of(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0])
