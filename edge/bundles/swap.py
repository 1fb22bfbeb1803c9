"""Exchange of a source's screener between two batches, on trial at first."""

import threading
import time
from collections.abc import Callable

from edge.screener import PendingScreening, ScreenedBatch, Screener
from shared.errors import BundleMismatchError
from shared.logs import EventLog
from shared.samples import SampleBatch

TRIAL_BATCHES = 5
_POLL_S = 0.05

log = EventLog("swap")


class Swap:
    """Exchange of one screener for another. `outcome` is None until the trial ends, then whether it passed."""

    def __init__(self, screener: Screener) -> None:
        self.screener = screener
        self.previous: Screener | None = None  # set when the exchange takes place
        self.batches_left = TRIAL_BATCHES
        self.outcome: bool | None = None
        self._decided = threading.Event()

    def decide(self, passed: bool) -> None:
        """End the trial."""
        self.outcome, self.previous = passed, None
        self._decided.set()

    def wait(self, timeout_s: float, given_up: Callable[[], bool]) -> bool:
        """Wait for the outcome; without one in time, or once `given_up`, the trial counts as passed."""
        end_s = time.monotonic() + timeout_s
        while not self._decided.wait(_POLL_S):
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
        self._failed_ids: set[str] = set()
        self._finished = False

    def offer(self, screener: Screener) -> Swap:
        """Let `screener` replace the current one at the next batch, or at once after the end of the source.

        Raises BundleMismatchError if it was rolled back here before.
        """
        if screener.bundle_id in self._failed_ids:
            raise BundleMismatchError(f"Bundle {screener.bundle_id} was rolled back here before: publish another.")
        swap = Swap(screener)
        with self._lock:
            self._offered = swap
            if self._finished:
                self._exchange()
        return swap

    def awaited(self, bundle_id: str) -> Swap | None:
        """Return the swap to that bundle if it was offered and is not decided yet."""
        with self._lock:
            swaps = (self._offered, self._on_trial)
        return next((swap for swap in swaps if swap is not None and swap.screener.bundle_id == bundle_id), None)

    def finish(self) -> None:
        """Note the end of the source: a trial has passed, and later offers take effect at once."""
        with self._lock:
            self._finished = True
            self._exchange()

    @property
    def has_offer(self) -> bool:
        """Whether a screener waits for the next batch."""
        return self._offered is not None

    def take_over(self) -> None:
        """Exchange the screener for the offered one. No batch may be under way."""
        with self._lock:
            self._exchange()

    def _exchange(self) -> None:
        """Exchange the screener; the lock is held."""
        swap, self._offered = self._offered, None
        if swap is not None:
            if self._on_trial is not None:
                self._on_trial.decide(True)
            swap.previous, self.current, self._on_trial = self.current, swap.screener, swap
            log.info("screener_swapped", bundle=swap.screener.bundle_id, before=swap.previous.bundle_id)
        if self._finished and self._on_trial is not None:
            self._on_trial.decide(True)
            self._on_trial = None

    def result(self, batch: SampleBatch, under_way: PendingScreening) -> tuple[Screener, ScreenedBatch]:
        """Return the screened batch and its screener: the previous one if the screener on trial fails on it."""
        screener, screened = under_way.screener, under_way.result()
        if self._on_trial is not None and screener is self.current:
            self._judge(self._on_trial, screened)
        if screener is not self.current:  # rolled back, now or while this batch was under way
            return self.current, self.current.screen(batch)
        return screener, screened

    def _judge(self, swap: Swap, screened: ScreenedBatch) -> None:
        """Count a batch of the trial; without any score the previous screener comes back."""
        if swap.previous is None or not len(screened.kept):
            return
        failed = screened.unscored == len(screened.kept)
        if failed:
            self._failed_ids.add(swap.screener.bundle_id)
            before = swap.previous.bundle_id
            log.error("screener_rolled_back", bundle=swap.screener.bundle_id, to=before, reason="no scores")
            self.current = swap.previous
        else:
            swap.batches_left -= 1
            if swap.batches_left > 0:
                return
        self._on_trial = None
        swap.decide(not failed)
