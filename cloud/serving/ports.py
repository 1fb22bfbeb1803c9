"""Port of the analysis of one bundle, as the service sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.errors import SampleRejected
from shared.samples import ImageCrop, Values, Verdict


@dataclass(frozen=True, slots=True)
class EarlyDecision:
    """Permission to leave out analyzers that cannot change the decisions on a batch.

    Attributes:
        false_alarm_rate: Largest fused p-value of an anomalous sample.
        exhaustive: Whether all analyzers score a sample in any case, by sample.
    """

    false_alarm_rate: float
    exhaustive: Sequence[bool]

    def at(self, rows: Sequence[int]) -> "EarlyDecision":
        """Return the permission for some of the samples, by position."""
        return EarlyDecision(self.false_alarm_rate, [self.exhaustive[row] for row in rows])


class Judge(Protocol):
    """Port of the analysis that judges batches; implemented by `cloud.serving.analysis.Analysis`."""

    def judge(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None], early: EarlyDecision | None = None
    ) -> list[Verdict | SampleRejected]:
        """Return one answer for each sample, in order.

        `crops`: the crop of its image that each sample shows, None for the whole image. `early`: permission to leave
        out analyzers that cannot change the decision; None: all analyzers score all samples.
        """
        ...
