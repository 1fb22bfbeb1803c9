"""Labelled samples that a training learns from beside its normal data."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.samples import Values

MIN_DEFECTS = 3  # with fewer the fusion has no member that learns from labels


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """Values of labelled samples, in the format of the bundle.

    `defects` are learned by the member of the fusion that needs them, and weigh its members. `false_alarms` are among
    the normal data as well; here they are named so that members can be weighed by them.
    """

    defects: Sequence[Values] = ()
    false_alarms: Sequence[Values] = ()


NO_LABELS = LabelledSamples()
