"""Stored samples of a bundle's name: those to learn from, and the frozen ones to compare bundles on."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud.job_process.modalities import Collecting, SplitData, job_modality
from cloud.job_process.stored_data import collect
from cloud.jobs.minimum import stored_shortage
from cloud.modalities import cloud_modality
from cloud.retraining.frozen import frozen_rank, is_frozen
from cloud.store import Store
from cloud.store.judging import WaitingSample
from cloud.store.labels import Label
from cloud.store.training_samples import (
    ChosenSamples,
    SampleSource,
    choose_samples,
    devices_screening_with,
    samples_by_number,
)
from cloud.training.labelled import LabelledSamples
from shared.bundle import Manifest
from shared.errors import BundleError, DataError
from shared.modality import Modality
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

MAX_FROZEN_NORMALS = 2000  # judged normal without a label; labelled samples are all compared


@dataclass(frozen=True, slots=True)
class FrozenSample:
    """Sample of the frozen set; `label` is None for one that was judged normal and has no label."""

    sample: WaitingSample
    label: Label | None


@dataclass(frozen=True, slots=True)
class StoredParts:
    """Samples of a retraining: `learned` without the frozen ones, and the frozen set."""

    learned: ChosenSamples
    frozen: tuple[FrozenSample, ...]


async def stored_parts(store: Store, running: Manifest, since_s: float) -> StoredParts:
    """Return the samples of all devices that bundles of the running one's name screened, in its input format.

    Raises DataError where they are too few.
    """
    name = running.name
    async with store.reading() as connection:
        devices = await devices_screening_with(connection, name)
        chosen = await choose_samples(connection, SampleSource(devices, name, since_s, running.bundle_id))
        if chosen is None:
            raise BundleError(f"Bundle {running.bundle_id} is not in the registry any more: run this command again.")
        known = await samples_by_number(connection, [*chosen.normals, *chosen.anomalies])
    by_time = cloud_modality(running.modality).splits_in_time
    apart = {number: each for number, each in known.items() if is_frozen(each.sample_id, by_time=by_time)}
    parts = StoredParts(_without(chosen, set(apart)), _frozen(chosen, apart))
    _check(parts.learned, name)
    return parts


async def collect_normals(
    store: Store, parts: StoredParts, how: Collecting, progress: Callable[[float], None]
) -> SplitData:
    """Return the normal samples as training data. Raises DataError if none of them can be used."""
    normals = dataclasses.replace(parts.learned, real=(), missed=())
    collector = job_modality(normals.modality).collector(normals, how)
    await collect(store, normals, collector, progress)
    return collector.data()


async def labelled_samples(store: Store, learned: ChosenSamples) -> LabelledSamples:
    """Return the values of labelled samples to learn from."""
    labelled, collector = dataclasses.replace(learned, judged_normal=(), audits=()), _LabelledValues(learned.modality)
    await collect(store, labelled, collector, lambda share: None)
    return LabelledSamples(collector.defects, collector.false_alarms)


class _LabelledValues:
    """Collector of the values of labelled samples; crops are left out."""

    def __init__(self, modality: Modality) -> None:
        self._modality = modality
        self.defects: list[Values] = []
        self.false_alarms: list[Values] = []

    def add(self, number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        """Decode one sample. Raises SampleRejected."""
        if not payload.HasField("crop"):
            kind = self.defects if is_anomalous else self.false_alarms
            kind.append(decode_payload(payload, self._modality))


def _without(chosen: ChosenSamples, apart: set[int]) -> ChosenSamples:
    def kept(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(number for number in numbers if number not in apart)

    return dataclasses.replace(
        chosen,
        judged_normal=kept(chosen.judged_normal),
        audits=kept(chosen.audits),
        false_alarms=kept(chosen.false_alarms),
        real=kept(chosen.real),
        missed=kept(chosen.missed),
    )


def _frozen(chosen: ChosenSamples, apart: dict[int, WaitingSample]) -> tuple[FrozenSample, ...]:
    """Return the frozen set in the order of arrival."""
    labels = {
        **dict.fromkeys(chosen.false_alarms, Label.FALSE_ALARM),
        **dict.fromkeys(chosen.real, Label.REAL),
        **dict.fromkeys(chosen.missed, Label.MISSED),
    }
    normals = [number for number in apart if number not in labels]
    normals.sort(key=lambda number: (frozen_rank(apart[number].sample_id), number))
    numbers = [*normals[:MAX_FROZEN_NORMALS], *(number for number in apart if number in labels)]
    return tuple(FrozenSample(apart[number], labels.get(number)) for number in sorted(numbers))


def _check(learned: ChosenSamples, name: str) -> None:
    """Raise DataError where samples or labels are too few to learn from."""
    if sentence := stored_shortage(learned.modality, len(learned.normals)):
        raise DataError(
            f"Stored samples of {name!r}, without the frozen set: {sentence} Give --days a larger number, or wait for "
            "more samples."
        )
    if not learned.false_alarms and not learned.anomalies:
        raise DataError(
            f"No stored sample of {name!r} to learn from has a label: decide items in the review of the console, then "
            "run this command again."
        )
