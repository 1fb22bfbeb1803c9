"""People who see the same sites: they share figures, parts of pages and the stream of changes."""

from collections import OrderedDict
from dataclasses import dataclass

from starlette.requests import Request

from cloud.accounts.identity import sites_of
from cloud.console.guidance import BundleProblems
from cloud.console.live import LiveFeed
from cloud.console.snapshots import Snapshots
from cloud.store import Store

MAX_AUDIENCES = 64  # kept in memory while nobody follows them


@dataclass(frozen=True, slots=True)
class Audience:
    """People who see these sites (none: all), and the figures and stream that their pages share."""

    sites: tuple[str, ...]
    snapshots: Snapshots
    feed: LiveFeed


class Audiences:
    """Audiences of the requests; the least recently used ones that nobody follows are forgotten."""

    def __init__(self, store: Store, late_after_s: float, bundle_problems: BundleProblems) -> None:
        self._store, self._late_after_s, self._bundle_problems = store, late_after_s, bundle_problems
        self._known: OrderedDict[tuple[str, ...], Audience] = OrderedDict()

    def of(self, request: Request) -> Audience:
        """Return the audience of the person behind a request."""
        sites = sites_of(request.scope)
        if sites not in self._known:
            snapshots = Snapshots(self._store, self._late_after_s, sites)
            self._known[sites] = Audience(sites, snapshots, LiveFeed(snapshots, self._bundle_problems))
            self._forget()
        self._known.move_to_end(sites)
        return self._known[sites]

    async def close(self) -> None:
        """End the streams of all pages."""
        for audience in list(self._known.values()):
            await audience.feed.close()

    def _forget(self) -> None:
        idle = [sites for sites, audience in self._known.items() if audience.feed.is_idle]
        for sites in idle[: max(0, len(self._known) - MAX_AUDIENCES)]:
            del self._known[sites]
