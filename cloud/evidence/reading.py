"""Reading of the evidence behind one verdict: rows and contents, bounded, then work outside the event loop."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.evidence.bundle_facts import BundleFacts, BundleShelf
from cloud.evidence.contents import UNREACHABLE, Contents, cells_of, decode_contents, read_contents
from cloud.evidence.examples import CANDIDATES, MAX_CANDIDATE_BYTES, NormalExample, nearest_examples, picture_of
from cloud.evidence.expected_picture import expected_picture
from cloud.evidence.history import SimilarVerdict, SourceVerdict, history_of, similar_items
from cloud.evidence.region import MarkedRegion, marked_region
from cloud.evidence.series import MAX_WINDOWS, SeriesPlot, Window, series_plot
from cloud.evidence.table import Feature, features_of
from cloud.modalities import View, cloud_modality
from cloud.store import Store
from cloud.store.contents import StoredMap, StoredPayload, first_payloads, load_maps
from cloud.store.context_queries import DeviceState, device_state
from cloud.store.labels import Label, StoredLabel, current_labels, label_history
from cloud.store.near_copies import NO_COPIES, StoredCopies, copies_of_sample
from cloud.store.queries import JudgedSample, is_waiting, judged_sample, key_of, verdict_page
from cloud.store.verdict_columns import VerdictRecord, VerdictRow
from cloud.store.verdict_keys import VerdictFilter
from shared.errors import SampleRejected, StorageError
from shared.images import decode_image
from shared.logs import EventLog, Throttle
from shared.samples import Decision
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

EARLIER, LATER, ALIKE = 96, 32, 60  # verdicts of the device that are looked at
MAX_WINDOW_BYTES = 2**20  # of the neighbouring windows together
ENOUGH_NORMALS = 6  # pictures of the source; with fewer those in the bundle are used, too
MAX_COMPARED_CELLS = 2**16  # of a map that is compared with others
_LOG = EventLog("evidence")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Rows of the store around one verdict, as read, and contents of some of them."""

    around: tuple[VerdictRow, ...]
    alike: tuple[VerdictRow, ...]
    labels: Mapping[int, Label]
    own_labels: tuple[StoredLabel, ...]
    device: DeviceState
    site: str
    near_copies: StoredCopies = NO_COPIES
    payloads: Mapping[int, sample_pb2.Payload] = field(default_factory=dict)
    maps: Mapping[int, StoredMap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that explains one verdict.

    `series`, `features`, `region`: contents of its view, None or empty for another view. `gaps`: one sentence for each
    part that is not available. `site`: of the device. `near_copies` of the sample stayed on it.
    """

    sample: JudgedSample
    contents: Contents
    bundle: BundleFacts | None
    history: tuple[SourceVerdict, ...]
    similar: tuple[SimilarVerdict, ...]
    labels: tuple[StoredLabel, ...]
    series: SeriesPlot | None
    features: tuple[Feature, ...]
    region: MarkedRegion | None
    examples: tuple[NormalExample, ...]
    site: str
    gaps: tuple[str, ...]
    near_copies: StoredCopies = NO_COPIES

    @property
    def marked_cells(self) -> NDArray[np.uint8] | None:
        """Anomaly map that marks the region: the cloud's, else the device's."""
        contents = self.contents
        return contents.cloud_map if contents.cloud_map is not None else contents.edge_map

    @property
    def has_expected_picture(self) -> bool:
        """Whether `expected_picture_of` may have a picture."""
        return self.region is not None and self.contents.values is not None and self.has_normal_pictures

    @property
    def has_normal_pictures(self) -> bool:
        """Whether there are normal pictures of the source, or in the bundle."""
        return bool(self.examples) or (self.bundle is not None and bool(self.bundle.pictures))

    @property
    def record(self) -> VerdictRecord:
        """The verdict with its sample."""
        return self.sample.record


def expected_picture_of(evidence: Evidence) -> NDArray[np.uint8] | None:
    """Return the expected look of a picture, or of a clip's last frame, by its normal pictures. Blocking."""
    values, cells = evidence.contents.values, evidence.marked_cells
    if values is None or cells is None or not evidence.has_expected_picture:
        return None
    normals = [example.pixels for example in evidence.examples]
    if len(normals) < ENOUGH_NORMALS and evidence.bundle is not None:
        normals += [decode_image(data) for data in evidence.bundle.pictures]
    return expected_picture(picture_of(values), cells, normals)


async def read_evidence(
    store: Store, shelf: BundleShelf, sample_id: uuid.UUID, *, compares: bool = True
) -> Evidence | bool:
    """Return the evidence of a verdict; True if the sample waits for its verdict, False if it is unknown.

    Contents that cannot be read now are left out. Without `compares` no normal pictures of the source are read, which
    takes most of the time. Raises StorageError.
    """
    async with store.reading() as connection:
        sample = await judged_sample(connection, sample_id)
        if sample is None:
            return await is_waiting(connection, sample_id)
        surroundings = await _surroundings(connection, sample.record)
    stored = None
    try:
        stored = await read_contents(store, sample_id)
        surroundings = await _with_contents(store, sample.record, surroundings, compares)
    except StorageError as error:
        if count := _throttle.allow("contents"):
            _LOG.error("contents_not_read", sample_id=sample_id, error=error, count=count)
    bundle, problem = await shelf.facts(sample.record.bundle_id or sample.record.edge_bundle_id)
    if bundle is not None and not sample.channels:
        sample = replace(sample, channels=bundle.spec.channels)
    return await asyncio.to_thread(_evidence, sample, stored, surroundings, bundle, problem)


async def _surroundings(connection: AsyncConnection, record: VerdictRecord) -> Surroundings:
    of_device = VerdictFilter(device_id=record.device_id, modality=record.modality)
    odd = VerdictFilter(device_id=record.device_id, modality=record.modality, decision=Decision.ANOMALOUS)
    key = key_of(record)
    earlier = (await verdict_page(connection, of_device, before=key, size=EARLIER)).rows
    later = (await verdict_page(connection, of_device, after=key, size=LATER)).rows
    alike = (await verdict_page(connection, odd, before=key, size=ALIKE)).rows
    around = (*later, *earlier)
    numbers = [row.number for row in (*around, *alike, record)]
    device, site = await device_state(connection, record.device_id)
    return Surroundings(
        around=around,
        alike=alike,
        labels=await current_labels(connection, numbers),
        own_labels=await label_history(connection, record.sample_id),
        device=device,
        site=site,
        near_copies=await copies_of_sample(connection, record.number),
    )


async def _with_contents(store: Store, record: VerdictRecord, rows: Surroundings, compares: bool) -> Surroundings:
    """Return the surroundings with the payloads and maps that the view of the verdict compares."""
    view = cloud_modality(record.modality).view
    wanted, max_bytes = _wanted_payloads(record, rows.around, view)
    if not compares and view is not View.TRACES:
        wanted = []
    payloads = await first_payloads(store, wanted, max_bytes) if wanted else {}
    maps: Mapping[int, StoredMap] = {}
    if view in (View.PICTURE, View.CLIP):
        maps = await load_maps(store, [row.number for row in (*rows.alike, record)], MAX_COMPARED_CELLS)
    return replace(rows, payloads=payloads, maps=maps)


def _wanted_payloads(record: VerdictRecord, around: Sequence[VerdictRow], view: View) -> tuple[list[int], int]:
    """Return the samples whose payloads are needed beside the own one, and the most bytes of them together."""
    own = [row for row in around if row.source_id == record.source_id and row.number != record.number]
    own.sort(key=lambda row: abs(row.captured_at_s - record.captured_at_s))
    if view is View.TRACES:
        return [row.number for row in own[:MAX_WINDOWS]], MAX_WINDOW_BYTES
    if view in (View.PICTURE, View.CLIP):
        normal = [row.number for row in own if row.decision is Decision.NORMAL]
        return normal[:CANDIDATES], MAX_CANDIDATE_BYTES
    return [], 0


def _evidence(
    sample: JudgedSample,
    stored: tuple[StoredPayload | None, StoredMap | None] | None,
    around: Surroundings,
    bundle: BundleFacts | None,
    bundle_problem: str,
) -> Evidence:
    """Return the evidence from rows of the store; `stored` is None if it cannot be read now. Blocking: it decodes."""
    record = sample.record
    contents = Contents(None, None, None, UNREACHABLE) if stored is None else decode_contents(*stored)
    view, shares = cloud_modality(record.modality).view, dict(record.contributions)
    values, cells = contents.values, contents.cloud_map if contents.cloud_map is not None else contents.edge_map
    series, features = None, tuple[Feature, ...]()
    if values is not None and view is View.TRACES:
        own = Window(record.captured_at_s, record.origin, values.astype(np.float32))
        series = series_plot(own, _windows(record, around), sample.channels, shares, contents.cloud_map, bundle)
    if values is not None and view is View.TABLE:
        features = features_of(values.astype(np.float32), sample.channels, shares, bundle)
    is_seen = view in (View.PICTURE, View.CLIP)
    maps = {number: cells_of(stored) for number, stored in around.maps.items()}
    examples = tuple[NormalExample, ...]()
    if values is not None and is_seen:
        ids = {row.number: row.sample_id for row in around.around}
        candidates = [(ids[number], payload) for number, payload in around.payloads.items()]
        examples = nearest_examples(values, record.modality, candidates)
    return Evidence(
        sample=sample,
        contents=contents,
        bundle=bundle,
        history=history_of(record, around.around, around.labels),
        similar=similar_items(record, around.alike, maps, around.labels),
        labels=around.own_labels,
        series=series,
        features=features,
        region=marked_region(cells) if is_seen and cells is not None else None,
        examples=examples,
        site=around.site,
        gaps=_gaps(contents, bundle_problem, around.device, record, series),
        near_copies=around.near_copies,
    )


def _windows(record: VerdictRecord, around: Surroundings) -> list[Window]:
    """Return the neighbouring windows; one that cannot be decoded is left out."""
    rows, found = {row.number: row for row in around.around}, []
    for number, payload in around.payloads.items():
        try:
            values: NDArray[np.float32] = decode_payload(payload, record.modality).astype(np.float32)
        except SampleRejected:
            continue
        found.append(Window(rows[number].captured_at_s, rows[number].origin, values))
    return found


def _gaps(
    contents: Contents, bundle_problem: str, device: DeviceState, record: VerdictRecord, series: SeriesPlot | None
) -> tuple[str, ...]:
    """Return one sentence for each part that is not available."""
    found = [contents.problem, bundle_problem]
    if device is DeviceState.REMOVED:
        found.append(f"Device {record.device_id} was removed from the fleet; its verdicts are kept.")
    if device is DeviceState.REVOKED:
        found.append(f"Device {record.device_id} was revoked and sends nothing more.")
    if series is not None and not series.placed:
        found.append("No neighbouring window of this source is stored, so only the window itself is shown.")
    return tuple(text for text in found if text)
