"""Port of the analysis of one bundle, as the service sees it."""

from collections.abc import Sequence
from typing import Protocol

from shared.errors import SampleRejected
from shared.samples import ImageCrop, Values, Verdict


class Judge(Protocol):
    """Port of the analysis that judges batches; implemented by `cloud.serving.analysis.Analysis`."""

    def judge(self, values: Sequence[Values], crops: Sequence[ImageCrop | None]) -> list[Verdict | SampleRejected]:
        """Return one answer for each sample, in order.

        `crops`: the crop of its image that each sample shows, None for the whole image.
        """
        ...
