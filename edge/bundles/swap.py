"""How one screener replaces another: between two batches, on trial at first, and back again if it fails."""

import threading
import time
from collections.abc import Callable

from edge.screener import ScreenedBatch, Screener, ScreeningUnderWay
from shared.errors import BundleMismatchError
from shared.logs import EventLog
from shared.samples import SampleBatch

TRIAL_BATCHES = 5

log = EventLog("swap")


class Swap:
    """A screener on offer. `outcome`: None while it is on trial, then whether it passed."""

    def __init__(self, screener: Screener) -> None:
        self.screener = screener
        self.outcome: bool | None = None
        self._decided = threading.Event()

    def decide(self, passed: bool) -> None:
        """The trial is over."""
        self.outcome = passed
        self._decided.set()

    def wait(self, timeout_s: float, given_up: Callable[[], bool]) -> bool:
        """Wait for the outcome; a trial that comes to no end counts as passed, for nothing spoke against it."""
        end_s = time.monotonic() + timeout_s
        while not self._decided.wait(0.05):
            if given_up() or time.monotonic() > end_s:
                return True
        return self.outcome is not False


class ScreenerSlot:
    """Holds the screener in use. `offer` may be called from any thread, all else from the source's own."""

    def __init__(self, screener: Screener) -> None:
        self.current = screener
        self._lock = threading.Lock()
        self._offered: Swap | None = None
        self._on_trial: Swap | None = None
        self._previous: Screener | None = None
        self._batches_left = 0
        self._failed_ids: set[str] = set()
        self._finished = False

    def offer(self, screener: Screener) -> Swap:
        """Let `screener` take over at the next batch, or at once where none will come.

        Raises BundleMismatchError if it failed here before.
        """
        if screener.bundle_id in self._failed_ids:
            raise BundleMismatchError(f"Bundle {screener.bundle_id} was rolled back here before: publish another.")
        swap = Swap(screener)
        with self._lock:
            self._offered = swap
            if self._finished:
                self._put_in_use()
        return swap

    def awaited(self, bundle_id: str) -> Swap | None:
        """The swap to that bundle if it was offered before and is not decided yet."""
        with self._lock:
            swaps = (self._offered, self._on_trial)
        return next((swap for swap in swaps if swap is not None and swap.screener.bundle_id == bundle_id), None)

    def finish(self) -> None:
        """The source has ended: a screener on trial has passed, and what is offered from now on takes over at once."""
        with self._lock:
            self._finished = True
            self._put_in_use()

    @property
    def has_offer(self) -> bool:
        """Whether a screener waits to take over."""
        return self._offered is not None

    def take_over(self) -> None:
        """Put the offered screener in use; no batch may be under way."""
        with self._lock:
            self._put_in_use()

    def _put_in_use(self) -> None:
        """With the lock held."""
        swap, self._offered = self._offered, None
        if swap is not None:
            if self._on_trial is not None:
                self._on_trial.decide(True)
            self._previous, self.current = self.current, swap.screener
            self._on_trial, self._batches_left = swap, TRIAL_BATCHES
            log.info("screener_swapped", bundle=swap.screener.bundle_id, before=self._previous.bundle_id)
        if self._finished and self._on_trial is not None:
            self._on_trial.decide(True)
            self._on_trial = self._previous = None

    def result(self, batch: SampleBatch, under_way: ScreeningUnderWay) -> tuple[Screener, ScreenedBatch]:
        """The batch as screened, and by whom: by the previous screener if the one on trial fails on it."""
        screener, screened = under_way.screener, under_way.result()
        if self._on_trial is not None and screener is self.current:
            self._judge(screened)
        if screener is not self.current:  # it was rolled back while this batch was under way, or just now
            return self.current, self.current.screen(batch)
        return screener, screened

    def _judge(self, screened: ScreenedBatch) -> None:
        swap, previous = self._on_trial, self._previous
        if swap is None or previous is None or not len(screened.kept):
            return
        if screened.unscored == len(screened.kept):
            self._failed_ids.add(swap.screener.bundle_id)
            log.error("screener_rolled_back", bundle=swap.screener.bundle_id, to=previous.bundle_id, reason="no scores")
            self.current = previous
        else:
            self._batches_left -= 1
            if self._batches_left > 0:
                return
        self._on_trial = self._previous = None
        swap.decide(self.current is swap.screener)
