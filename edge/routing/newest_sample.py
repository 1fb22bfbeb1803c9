"""Newest screened sample of a source, which a live view shows."""

import numpy as np
from numpy.typing import NDArray

from edge.routing.router import ROUTES
from edge.screener import ScreenedBatch, Screener
from shared.live_views import NewestSample
from shared.samples import SampleBatch, Screening


class KeptSample:
    """Newest sample of one source, written by the thread of its pipeline and read by the uplink.

    `permitted`: the settings allow live views; otherwise nothing is kept.
    """

    def __init__(self, *, permitted: bool) -> None:
        self._permitted = permitted
        self._newest: NewestSample | None = None

    def get(self) -> NewestSample | None:
        """Return the sample; None before the first one."""
        return self._newest

    def keep(self, batch: SampleBatch, screened: ScreenedBatch, codes: NDArray[np.int8], screener: Screener) -> None:
        """Keep the last screened sample of a batch; `codes` (kept,) are the routes."""
        if self._permitted and len(screened.kept):
            self._newest = newest_sample(batch, screened, codes, screener)


def newest_sample(
    batch: SampleBatch, screened: ScreenedBatch, codes: NDArray[np.int8], screener: Screener
) -> NewestSample:
    """Return the last screened sample of a batch that has one; `codes` (kept,) are the routes.

    Its values do not keep those of the others in memory.
    """
    position = int(screened.kept[-1])
    values = np.asarray(batch.values[position])
    return NewestSample(
        modality=batch.modality,
        captured_at_s=float(batch.captured_at_s[position]),
        origin=batch.origins[position],
        values=values if values.base is None else values.copy(),
        screening=Screening(
            score=float(screened.scores[-1]),
            p_value=float(screened.p_values[-1]),
            extrapolated=bool(screened.extrapolated[-1]),
            route=ROUTES[codes[-1]],
            bundle_id=screener.bundle_id,
            calibration_id=screened.calibration_id or screener.calibration_id,
            artefact=screener.artefact,
        ),
    )
