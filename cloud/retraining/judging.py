"""Judging of the frozen set by two bundles."""

from collections.abc import Callable, Sequence

from cloud.comparison.run import answers_of
from cloud.retraining.stored import FrozenSample
from cloud.serving.ports import Judge
from cloud.store import Store
from cloud.store.comparison_samples import ComparedSample

BATCH = 64


async def compare_on(
    store: Store,
    frozen: Sequence[FrozenSample],
    judges: Sequence[tuple[str, Judge]],
    false_alarm_rate: float,
    progress: Callable[[float], None],
) -> list[ComparedSample]:
    """Return the answers of the running bundle and of the candidate on each frozen sample.

    `judges`: id and analysis of the running bundle, then of the candidate.
    """
    found: list[ComparedSample] = []
    for first in range(0, len(frozen), BATCH):
        part = frozen[first : first + BATCH]
        answers = await answers_of(store, [each.sample for each in part], judges, false_alarm_rate)
        for each, one, other in zip(part, *answers, strict=True):
            sample = each.sample
            found.append(ComparedSample(sample.number, sample.sample_id, sample.device_id, each.label, one, other))
        progress((first + len(part)) / len(frozen))
    return found
