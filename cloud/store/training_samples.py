"""Judged samples of devices for a training: which are normal, and which are known anomalies to evaluate on.

Normal are samples that the analyzers judged normal and that no label contradicts, audits among them, and labelled false
alarms. Samples labelled real or missed are anomalies, never normal. Samples that are unsure, undecided or anomalous
without a label are left out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.judging import SAMPLE_COLUMNS, WaitingSample, sample_of_row
from cloud.store.labels import IS_CURRENT, Label, current_labels
from cloud.store.schema import bundles, devices, labels, payloads, samples, verdicts
from cloud.store.sites import of_sites
from cloud.store.verdict_keys import VerdictFilter
from cloud.store.verdict_ranges import Span, find_keys
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.samples import Decision, Route

MAX_DEVICES, MAX_SAMPLES, PART = 200, 20_000, 500
_ANOMALOUS, _NORMAL = (Label.REAL, Label.MISSED), (Label.FALSE_ALARM,)


@dataclass(frozen=True, slots=True)
class SampleSource:
    """Wanted samples: their devices, the name of the bundles that screened them, the oldest verdict.

    `format_of`: bundle of the name whose input format the samples have; empty: the newest one.
    """

    devices: tuple[str, ...]
    bundle_name: str
    since_s: float
    format_of: str = ""


@dataclass(frozen=True, slots=True)
class ChosenSamples:
    """Numbers of the chosen samples, newest first, and their input format, that of one bundle of the name.

    `other_format`: samples left out because a bundle of another format screened them; `without_payload`: because their
    payload has expired.
    """

    modality: Modality
    spec: InputSpec
    judged_normal: tuple[int, ...]
    audits: tuple[int, ...]
    false_alarms: tuple[int, ...]
    real: tuple[int, ...]
    missed: tuple[int, ...]
    other_format: int
    without_payload: int

    @property
    def normals(self) -> tuple[int, ...]:
        """Normal samples, in the order of their arrival."""
        return tuple(sorted((*self.judged_normal, *self.audits, *self.false_alarms)))

    @property
    def anomalies(self) -> tuple[int, ...]:
        """Known anomalies, in the order of their arrival."""
        return tuple(sorted((*self.real, *self.missed)))


async def devices_of(
    connection: AsyncConnection, *, device_id: str = "", group: str = "", sites: Collection[str] = ()
) -> tuple[str, ...]:
    """Return a device, or the first MAX_DEVICES of a group, as far as an account of these sites sees them."""
    query = select(devices.c.device_id).where(devices.c.removed_at_s.is_(None), *of_sites(sites))
    query = query.where(devices.c.device_id == device_id if device_id else devices.c.group_name == group)
    return tuple((await connection.execute(query.order_by(devices.c.device_id).limit(MAX_DEVICES))).scalars())


async def devices_screening_with(connection: AsyncConnection, bundle_name: str) -> tuple[str, ...]:
    """Return all devices with stored samples that bundles of a name screened, without removed ones.

    Reads all samples once: no index names their bundle.
    """
    of_name = select(bundles.c.bundle_id).where(bundles.c.name == bundle_name)
    screened = select(samples.c.device_id).where(samples.c.edge_bundle_id.in_(of_name))
    query = select(devices.c.device_id).where(devices.c.removed_at_s.is_(None), devices.c.device_id.in_(screened))
    return tuple((await connection.execute(query.order_by(devices.c.device_id))).scalars())


async def samples_by_number(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, WaitingSample]:
    """Return those of the samples that are still stored, by number."""
    found: dict[int, WaitingSample] = {}
    for first in range(0, len(numbers), PART):
        query = select(*SAMPLE_COLUMNS).where(samples.c.number.in_(numbers[first : first + PART]))
        for row in await connection.execute(query):
            sample = sample_of_row(row)
            found[sample.number] = sample
    return found


async def choose_samples(connection: AsyncConnection, wanted: SampleSource) -> ChosenSamples | None:
    """Return the samples of a choice, at most MAX_SAMPLES normal ones; None if there is no such bundle of the name."""
    query = select(bundles.c.bundle_id, bundles.c.modality, bundles.c.manifest[("input",)].label("input"))
    query = query.where(bundles.c.name == wanted.bundle_name).order_by(bundles.c.version.desc())
    known = (await connection.execute(query)).all()
    model = next((row for row in known if wanted.format_of in ("", row.bundle_id)), None)
    if model is None:
        return None
    modality, spec = Modality(model.modality), InputSpec.model_validate(model.input)
    same = {row.bundle_id for row in known if _format(InputSpec.model_validate(row.input)) == _format(spec)}
    every = {row.bundle_id for row in known}
    routes = await _judged_normal(connection, wanted, modality)
    labelled = await _labelled(connection, wanted, modality)
    numbers = list(dict.fromkeys([*labelled, *routes]))
    bundle_of, with_payload = await _facts(connection, numbers)
    fitting = [number for number in numbers if bundle_of.get(number) in same]
    usable = [number for number in fitting if number in with_payload]
    unlabelled = [number for number in usable if number in routes and number not in labelled]
    contradicted = await _contradicted(connection, unlabelled)
    kept = [number for number in unlabelled if number not in contradicted]

    def with_label(label: Label) -> tuple[int, ...]:
        return tuple(number for number in usable if labelled.get(number) is label)

    return ChosenSamples(
        modality,
        spec,
        tuple(number for number in kept if routes[number] is not Route.AUDIT),
        tuple(number for number in kept if routes[number] is Route.AUDIT),
        with_label(Label.FALSE_ALARM),
        with_label(Label.REAL),
        with_label(Label.MISSED),
        sum(bundle_of.get(number) in every - same for number in numbers),
        len(fitting) - len(usable),
    )


def _format(spec: InputSpec) -> tuple[object, ...]:
    """Return what the values of a sample depend on; images and clips travel in any size."""
    return spec.channels, spec.window_length, spec.mode_channel, spec.categories


async def _judged_normal(connection: AsyncConnection, wanted: SampleSource, modality: Modality) -> dict[int, Route]:
    """Return the newest samples judged normal with their routes; each device gives its share of MAX_SAMPLES."""
    found: dict[int, Route] = {}
    for device_id in wanted.devices:
        share = max(1, MAX_SAMPLES // len(wanted.devices) // len(Route))
        for route in Route:
            choice = VerdictFilter(device_id, modality, route, Decision.NORMAL, since_s=wanted.since_s)
            keys = (await find_keys(connection, choice, Span(), share)).keys
            found |= dict.fromkeys((key.number for key in keys), route)
    return found


async def _labelled(connection: AsyncConnection, wanted: SampleSource, modality: Modality) -> dict[int, Label]:
    """Return the newest samples that are labelled real, missed or a false alarm."""
    found: dict[int, Label] = {}
    for first in range(0, len(wanted.devices), PART):
        query = (
            select(labels.c.sample_number, labels.c.label)
            .join(verdicts, verdicts.c.number == labels.c.sample_number)
            .where(labels.c.label.in_([label.value for label in (*_ANOMALOUS, *_NORMAL)]), IS_CURRENT)
            .where(verdicts.c.device_id.in_(wanted.devices[first : first + PART]))
            .where(verdicts.c.modality == modality.value, verdicts.c.judged_at_s >= wanted.since_s)
            .order_by(labels.c.sample_number.desc())
            .limit(MAX_SAMPLES)
        )
        found |= {row.sample_number: Label(row.label) for row in await connection.execute(query)}
    return {number: found[number] for number in sorted(found, reverse=True)[:MAX_SAMPLES]}


async def _contradicted(connection: AsyncConnection, numbers: Sequence[int]) -> set[int]:
    """Return those samples that have a label, which is another one than the wanted labels."""
    found: set[int] = set()
    for first in range(0, len(numbers), PART):
        found |= set(await current_labels(connection, numbers[first : first + PART]))
    return found


async def _facts(connection: AsyncConnection, numbers: Sequence[int]) -> tuple[Mapping[int, str], set[int]]:
    """Return the bundle that screened each sample, and the samples whose payload is still stored."""
    bundle_of: dict[int, str] = {}
    stored: set[int] = set()
    for first in range(0, len(numbers), PART):
        part = numbers[first : first + PART]
        query = select(samples.c.number, samples.c.edge_bundle_id).where(samples.c.number.in_(part))
        bundle_of |= {row.number: row.edge_bundle_id for row in await connection.execute(query)}
        query = select(payloads.c.number).where(payloads.c.number.in_(part))
        stored |= set((await connection.execute(query)).scalars())
    return bundle_of, stored
