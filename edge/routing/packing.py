"""Samples that travel, as the messages that lie in the spool."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.routing.payload_tiers import PayloadTiers, Tier
from edge.routing.router import ROUTES, Routing
from edge.screener import ScreenedBatch, Screener
from edge.spool_store import NewSample
from shared.errors import SampleRejected
from shared.logs import EventLog, Throttle
from shared.modality import Modality
from shared.samples import Route, Sample, SampleBatch, Screening, new_sample_id, new_sample_ids
from shared.wire import MAX_MAP_CELLS, MAX_TEXT_CHARACTERS, encode_payload, is_image, sample_to_message, whole_seconds
from vedette.v1 import sample_pb2

log = EventLog("packing")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class Packed:
    """`samples` and their `sample_ids` for the `places` that could be packed, `failed` for those that could not."""

    samples: list[NewSample] = field(default_factory=list)
    sample_ids: dict[int, uuid.UUID] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)


def pack(
    batch: SampleBatch,
    screened: ScreenedBatch,
    routing: Routing,
    screener: Screener,
    tiers: PayloadTiers,
    tier: Tier,
) -> Packed:
    """The samples that `routing` lets travel, as `tier` wants it. Places count in the order of `screened.kept`."""
    packed = Packed()
    places = np.flatnonzero(routing.travels)
    if not len(places):
        return packed
    packer = _Packer(batch, screened, routing, places, screener, (tiers, tier))
    priorities, sample_ids = routing.priorities[places].tolist(), new_sample_ids(len(places))
    for number, (place, sample_id) in enumerate(zip(places.tolist(), sample_ids, strict=True)):
        try:
            data = packer.message(number, sample_id).SerializeToString()
        except Exception as error:  # whatever it is: the other samples travel
            packed.failed.append(place)
            if _throttle.allow("failed"):
                reason = error if isinstance(error, SampleRejected) else repr(error)
                log.error("sample_cannot_travel", origin=batch.origins[int(screened.kept[place])], reason=reason)
            continue
        packed.sample_ids[place] = sample_id
        packed.samples.append(NewSample(sample_id.bytes, priorities[number], data))
    return packed


def envelope_bytes(batch: SampleBatch, screened: ScreenedBatch, routing: Routing, screener: Screener) -> int:
    """What a message of this source and screener holds beside its payload, as one that has just been screened shows."""
    packer = _Packer(batch, screened, routing, np.zeros(1, np.intp), screener)
    message = packer.message(0, new_sample_id())
    return message.ByteSize() - len(message.payload.data)


class _Packer:
    """Packs samples of one batch, those at `places` (n,) in the order of `screened.kept`.

    Of rows and windows all messages are one, with what differs put in anew: a third of the time, and it is spent once
    for each sample that travels. What the first does not win by compression, the others of the batch are not tried for.
    """

    def __init__(
        self,
        batch: SampleBatch,
        screened: ScreenedBatch,
        routing: Routing,
        places: NDArray[np.intp],
        screener: Screener,
        reduction: tuple[PayloadTiers, Tier] | None = None,
    ) -> None:
        self._batch, self._maps, self._screener = batch, screened.maps, screener
        # As numbers of Python's own: one step for each column, not one for each field of each message.
        self._places, self._positions = places.tolist(), screened.kept[places].tolist()
        self._scores, self._p_values = screened.scores[places].tolist(), screened.p_values[places].tolist()
        self._captured_at_s = batch.captured_at_s[screened.kept[places]].tolist()
        self._extrapolated, self._codes = screened.extrapolated[places].tolist(), routing.codes[places].tolist()
        self._reduction = reduction if batch.modality is Modality.IMAGE else None
        self._reuses = batch.modality in (Modality.TABULAR, Modality.SERIES) and screened.maps is None
        self._template: sample_pb2.Sample | None = None
        self._compresses = False

    def message(self, number: int, sample_id: uuid.UUID) -> sample_pb2.Sample:
        """The message of the sample at one of the places, good until the next is asked for.

        Raises SampleRejected if it cannot travel.
        """
        position = self._positions[number]
        origin = self._batch.origins[position]
        message = self._template
        if message is not None and len(origin) <= MAX_TEXT_CHARACTERS and origin.isascii():
            screening, captured_at, values = message.screening, message.captured_at, self._batch.values[position]
            message.sample_id = sample_id.bytes
            message.origin = origin
            captured_at.seconds, captured_at.nanos = whole_seconds(self._captured_at_s[number])
            if self._compresses:
                message.payload.CopyFrom(encode_payload(values, self._batch.modality))
            else:
                message.payload.data = np.asarray(values, dtype="<f4").tobytes()
            screening.score = self._scores[number]
            screening.p_value = self._p_values[number]
            screening.extrapolated = self._extrapolated[number]
            screening.route = _CODES[self._codes[number]]
            return message
        said = self._screening(number)
        message = sample_to_message(self._sample(position, sample_id, origin, said), said)
        if self._reuses:
            self._template = message
            self._compresses = message.payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
        return message

    def _sample(self, position: int, sample_id: uuid.UUID, origin: str, said: Screening) -> Sample:
        batch = self._batch
        values, part = batch.values[position], None
        encoded = batch.encoded[position] if batch.encoded is not None else None
        if self._reduction is not None and is_image(values):
            (tiers, tier), spec = self._reduction, self._screener.spec
            # An audit asks what the screener does not see: its map must not choose what the cloud sees.
            tier = tiers.whole(tier) if said.route is Route.AUDIT else tier
            graph_size = (spec.image_height, spec.image_width)
            values, encoded, part = tiers.reduce(tier, values, encoded, said.anomaly_map, graph_size)
        return Sample(
            sample_id=sample_id,
            source_id=batch.source_id,
            modality=batch.modality,
            captured_at_s=float(batch.captured_at_s[position]),
            origin=origin,
            values=values,
            encoded=encoded,
            crop=part,
        )

    def _screening(self, number: int) -> Screening:
        screener, place = self._screener, self._places[number]
        anomaly_map = None
        if self._maps is not None and self._maps[place].size <= MAX_MAP_CELLS:
            anomaly_map = screener.scaled_map(self._maps[place])
        return Screening(
            score=self._scores[number],
            p_value=self._p_values[number],
            extrapolated=self._extrapolated[number],
            route=ROUTES[self._codes[number]],
            bundle_id=screener.bundle_id,
            calibration_id=screener.calibration_id,
            artefact=screener.artefact,
            anomaly_map=anomaly_map,
        )


# On the wire, in the order of the router's codes.
_CODES: Sequence[sample_pb2.Route] = (
    sample_pb2.ROUTE_ACCEPT,
    sample_pb2.ROUTE_FORWARD,
    sample_pb2.ROUTE_ALARM,
    sample_pb2.ROUTE_AUDIT,
)
