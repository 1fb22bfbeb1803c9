"""Share done of the stage "quantising and comparing", from the measured times of its parts.

The number of parts is unknown at first: a gate that refuses an artefact costs a ranking of layers and further attempts.
Each part that ends gives an estimate of the time left:

* after the comparison of FP32, INT8_RATIO times its time for each INT8 artefact;
* while layers are ranked, the mean time of a layer, and then ATTEMPTS times the time of the attempt before;
* after an INT8 artefact, its time without the ranking, which is made once, for each one that follows.
"""

import time
from collections.abc import Callable

from cloud.training.progress import StageProgress

STAGE = "quantising and comparing"
INT8_RATIO = 5.0  # measured on images of 128 and 256 pixels: 4 to 10 without a ranking
ATTEMPTS = 6.0  # after a ranking, by bisection


class ArtefactProgress:
    """Progress of the stage. `int8_artefacts`: number of INT8 artefacts, built after the one in FP32."""

    def __init__(self, report: StageProgress, int8_artefacts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._started_s = self._artefact_s = self._attempt_s = self._ranking_s = clock()
        self._first_attempt_s = self._rankings_s = 0.0  # seconds; the others are points in time
        self._to_build, self._attempts_left = int8_artefacts, ATTEMPTS
        report(STAGE, 0.0)

    def compared(self) -> None:
        """Report that the FP32 artefact has passed."""
        self._artefact_s = self._attempt_s = self._clock()
        self._left(self._to_build * INT8_RATIO * (self._clock() - self._started_s))

    def attempted(self) -> None:
        """Report that an attempt at an INT8 artefact has ended, refused or not."""
        now_s = self._clock()
        self._first_attempt_s = self._first_attempt_s or now_s - self._attempt_s
        if self._rankings_s:
            self._attempts_left = max(1.0, self._attempts_left - 1)
            self._left(self._attempts_to_come() * (now_s - self._attempt_s))
        self._attempt_s = self._ranking_s = now_s

    def ranked(self, share: float) -> None:
        """Report the share of the layers, above 0, that are ranked."""
        now_s = self._clock()
        ranking_s = now_s - self._ranking_s
        self._attempts_left = ATTEMPTS
        self._left(ranking_s * (1 - share) / share + self._attempts_to_come() * self._first_attempt_s)
        if share >= 1:
            self._rankings_s += ranking_s
            self._attempt_s = now_s

    def built(self) -> None:
        """Report that an INT8 artefact has passed."""
        now_s = self._clock()
        self._to_build -= 1
        self._left(self._to_build * max(0.0, now_s - self._artefact_s - self._rankings_s))
        self._artefact_s = self._attempt_s = now_s
        self._rankings_s = 0.0

    def _attempts_to_come(self) -> float:
        """Return the number of attempts at this artefact and at those that follow."""
        return self._attempts_left + (self._to_build - 1) * (1 + ATTEMPTS)

    def _left(self, left_s: float) -> None:
        elapsed_s = self._clock() - self._started_s
        if elapsed_s > 0:
            self._report(STAGE, elapsed_s / (elapsed_s + left_s))
